"""Makes tests/vectors/tink_streaming_aead.json with Tink itself (`pip install tink`, elsewhere than in .venv)."""

import hashlib
import importlib.metadata
import io
import json
import sys

import tink
from tink import cleartext_keyset_handle, streaming_aead
from tink.proto import aes_gcm_hkdf_streaming_pb2
from tink.streaming_aead import streaming_aead_key_templates as templates


class _Kept(io.BytesIO):
    def close(self) -> None:
        pass


def main() -> None:
    """Prints the vectors as JSON. Plaintexts are `bytes(i * 7 % 251)`; long ciphertexts stand as their SHA-256."""
    streaming_aead.register()
    first = 4096 - 16 - 40
    vectors = []
    for size in (0, 1, 23, first - 1, first, first + 1, first + 4080, first + 4081, 20_000):
        handle = tink.new_keyset_handle(templates.AES256_GCM_HKDF_4KB)
        keyset = io.BytesIO()
        cleartext_keyset_handle.write(tink.BinaryKeysetWriter(keyset), handle)
        message = cleartext_keyset_handle.tink_pb2.Keyset.FromString(keyset.getvalue())
        key = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey.FromString(
            message.key[0].key_data.value
        )
        associated, out = f"associated data {size}".encode(), _Kept()
        primitive = handle.primitive(streaming_aead.StreamingAead)
        with primitive.new_encrypting_stream(out, associated) as stream:
            stream.write(bytes(i * 7 % 251 for i in range(size)))
        ciphertext = out.getvalue()
        vectors.append(
            {
                "key": key.key_value.hex(),
                "associated_data": associated.hex(),
                "segment_bytes": key.params.ciphertext_segment_size,
                "plaintext_bytes": size,
                "header": ciphertext[:40].hex(),
                "ciphertext_sha256": hashlib.sha256(ciphertext).hexdigest(),
                **({"ciphertext": ciphertext.hex()} if size < 100 else {}),
            }
        )
    json.dump(
        {"source": "Tink " + importlib.metadata.version("tink"), "vectors": vectors},
        sys.stdout,
        indent=1,
    )


if __name__ == "__main__":
    main()
