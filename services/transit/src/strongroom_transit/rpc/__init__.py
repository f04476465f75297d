"""The contract, translated."""
