"""``python -m glm_data.cli`` is ``glm-data``."""

from glm_data.cli import main

if __name__ == "__main__":
    main()
