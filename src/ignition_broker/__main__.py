# Guarded, since the processes of `serve --workers` import this module again.
if __name__ == "__main__":
    from ignition_broker.cli import main

    main()
