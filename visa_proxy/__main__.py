"""`python -m visa_proxy` is `visa-proxy`."""

from visa_proxy.cli.main import main

if __name__ == "__main__":
    main()
