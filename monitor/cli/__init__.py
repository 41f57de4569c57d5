"""The command line: the only place that knows everything.

    main         the group, exit statuses, and how an error becomes one line
    parameters   what an option's text means: ports, networks, HOST:PORT
    observers    the site, and all that counts finished sessions
    settings     the TOML file of `watch`
    read         capture files -> table, JSON lines or metrics
    progress     the bar that long files get
    watch        the options of `watch`
    probes       which probe reads files, and which watches
    watching     the probe's loop, threads and signals behind it
    serving      the process that serves /metrics
    opener       the process that opens files
    tapping      the process that keeps the TLS tap
    children     how such a process begins
    doctor       what this machine can do

Flags go before the environment (SMTP_HORIZON_...), that before the TOML file, that before defaults. Modules
import what is heavy only where it is used, since most of the time of a short command is its imports.
"""
