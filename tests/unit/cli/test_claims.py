"""What a platform must have for itself."""

import os
import socket
from pathlib import Path

import pytest

from strongroom_cli.claims import check_address, claim_folder


def test_a_folder_has_one_platform(tmp_path: Path) -> None:
    claim = claim_folder(tmp_path)
    with pytest.raises(RuntimeError, match="another platform runs on"):
        claim_folder(tmp_path)
    os.close(claim)
    os.close(claim_folder(tmp_path))


def test_an_address_that_is_in_use_is_named() -> None:
    with socket.socket() as taken:
        # As servers of one platform listen, which others must not join.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(
            RuntimeError, match=f"listen: cannot listen on {address}: Address already"
        ):
            check_address("listen", address)
    check_address("listen", address)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"grpc_listen: cannot listen on 192\.0\.2\.1:8202"):
        check_address("grpc_listen", "192.0.2.1:8202")
