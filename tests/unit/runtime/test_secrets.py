"""Texts that open something."""

from strongroom_runtime.secrets import looks_like_token, new_accessor, new_token


def test_accessors_are_of_letters_and_digits_and_no_tokens() -> None:
    made = {new_accessor() for _ in range(1_000)}
    assert len(made) == 1_000
    for accessor in made:
        assert (len(accessor), accessor.isascii(), accessor.isalnum()) == (24, True, True)
        assert not looks_like_token(accessor)


def test_tokens_look_like_tokens() -> None:
    assert all(looks_like_token(new_token()) for _ in range(1_000))
