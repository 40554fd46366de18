from ignition_broker.cli import main

main()
