"""``python -m stcsm``."""

from stcsm.cli import main

if __name__ == "__main__":
    main()
