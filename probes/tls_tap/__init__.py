"""What a mail server's TLS library decrypts and encrypts: the envelope inside TLS, on its own machine."""
