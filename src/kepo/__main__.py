"""`python -m kepo`, and `accelerate launch -m kepo train RECIPE`."""

from kepo.cli.main import main

if __name__ == "__main__":
    main()
