"""`strongroom transit rewrap`: the ciphertexts of a file, encrypted anew with the latest version of their key."""
