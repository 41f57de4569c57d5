"""What a mail server's TLS library decrypts and encrypts: the envelope inside TLS, on the server's machine."""
