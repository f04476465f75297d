"""Picks tests/vectors/wycheproof.json from a checkout of C2SP/wycheproof: a few of each kind of test that a file has.

Usage: python scripts/wycheproof.py CHECKOUT
"""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parent.parent / "tests" / "vectors" / "wycheproof.json"
FILES = [
    *("aes_gcm", "chacha20_poly1305", "xchacha20_poly1305", "aes_cmac", "ed25519"),
    *(f"hmac_{name}" for name in ("sha256", "sha384", "sha512", "sha3_256")),
    *(
        f"ecdsa_{curve}{form}"
        for curve in ("secp256r1_sha256", "secp384r1_sha384", "secp521r1_sha512")
        for form in ("", "_p1363")
    ),
    *("rsa_pss_2048_sha256_mgf1_32", "rsa_pss_4096_sha512_mgf1_64", "rsa_oaep_2048_sha256_mgf1sha256"),
    *("rsa_signature_2048_sha256", "rsa_signature_3072_sha512"),
    *("mldsa_44_verify", "mldsa_65_verify"),
]  # fmt: skip
_OF_A_KIND = {"mldsa": 1}  # their signatures are long; of others two
_SIZES = {"ivSize": (96, 192), "tagSize": (128, 256, 384, 512)}  # those that transit has
_GROUP = ("keySize", "ivSize", "tagSize", "publicKeyDer", "privateKeyPkcs8")
_TEST = ("tcId", "comment", "key", "iv", "aad", "msg", "ct", "tag", "sig", "label", "ctx", "result")


def main() -> None:
    """Writes the selection."""
    checkout = Path(sys.argv[1])
    commit = _git(checkout, "rev-parse", "HEAD").strip()
    chosen = {name: _chosen(checkout, name) for name in FILES}
    content = {
        "source": f"https://github.com/C2SP/wycheproof, {commit}; Apache License 2.0",
        "files": chosen,
    }
    TARGET.write_text(json.dumps(content, indent=0) + "\n")


def _chosen(checkout: Path, name: str) -> list[dict[str, Any]]:
    whole = json.loads(_git(checkout, "show", f"HEAD:testvectors_v1/{name}_test.json"))
    seen: Counter[tuple[Any, ...]] = Counter()
    groups = []
    for group in whole["testGroups"]:
        size = (group.get("keySize"), group.get("ivSize"), group.get("tagSize"))
        if any(key in group and group[key] not in sizes for key, sizes in _SIZES.items()):
            continue
        tests = []
        for test in group["tests"]:
            kind = (*size, test["result"], *sorted(test.get("flags", ())))
            seen[kind] += 1
            if seen[kind] <= _OF_A_KIND.get(name.partition("_")[0], 2):
                tests.append({key: test[key] for key in _TEST if key in test})
        if tests:
            groups.append({**{key: group[key] for key in _GROUP if key in group}, "tests": tests})
    return groups


def _git(checkout: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(checkout), *arguments], check=True, capture_output=True, text=True
    ).stdout


if __name__ == "__main__":
    main()
