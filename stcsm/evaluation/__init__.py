"""How far a map can be trusted: faithfulness, sanity, stability."""
