"""What the audit service decides, without gRPC, etcd or files."""
