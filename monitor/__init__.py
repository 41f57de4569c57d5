"""What the packets mean. One straight way through the house, and the modules stand in its order:

    streams            segments -> each direction's bytes in order, gaps and closes
    proxy_protocol     the PROXY header which a load balancer may put in front
    smtp/              clear-text SMTP, both directions -> events
    tls/               TLS, both directions -> version, cipher, SNI, ALPN, JA4, and how the handshake ended
    sessions/          the bounded table of open connections -> one frozen SessionRecord each
    tapped/            what the server decrypts -> what the record tells of the inside of TLS
    greylisters/       what each program that watches the stream could have done with a session
    geoip              where addresses are, by the operator's databases
    peers/             records -> who came back after being put off, and who needs TLS
    simulation/        records -> what a greylister would have decided here
    metrics/           records -> plain integers -> Prometheus
    records            records -> JSON lines
    report             integers -> the table that `read` prints
    cli/               the only place that knows everything: settings, threads, signals, privileges

`streams`, `proxy_protocol`, `smtp` and `tls` are sans-IO: no socket, no clock, no logging, no threads; time
arrives as an argument, bytes go in, events come out, traffic never raises, and any split of the same bytes
gives the same events.
"""
