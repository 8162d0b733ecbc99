"""`python -m raycl`: the command line without the console script."""

from raycl.cli.main import main

if __name__ == "__main__":
    main()
