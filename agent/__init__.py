"""appliance-agent: small servers as User-Mode Linux guests under systemd.

Folders are layers, and imports point down only (tests/style/test_layers.py holds the table):

    model   0  vocabulary: names, settings, manifests, health, errors
    util    1  files, subprocesses, tasks, journal
    config  2  YAML text to settings; pure
    plan    2  settings to unit drop-ins, launch plans, guest configuration, network names; pure
    host    3  the outside worlds: D-Bus and PID 1, netlink, image store, data volumes, users
    image   3  building images from recipes
    core    4  decisions: reconcile and health
    dbus    5  org.appliance1
    daemon, cli, launch, stop   6
    guest      what runs inside a guest (C, not imported)
"""

__version__ = "0.1.0"
