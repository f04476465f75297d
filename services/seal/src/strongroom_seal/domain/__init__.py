"""What the seal service decides, without gRPC or etcd."""
