"""Analysis steps on AnnData: fetch arrays, compute, write keys."""
