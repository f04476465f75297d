"""The gateway: both public wires, token enforcement, policy decisions, routing, audit emission."""
