"""etcd: the client, watches that resume, the store, and the embedded server. Nothing else talks to etcd."""
