"""``python -m limbeck``: what launchers such as torchrun start once for every process."""

from limbeck.cli import main

if __name__ == "__main__":
    main()
