"""Tokens as leases: found, listed and revoked by the paths that made them."""

import pytest
from tests.unit.auth.harness import ROOT, Auth, refused

from strongroom_auth.tokens.tokens import Grant, Issued
from strongroom_runtime.errors import Kind
from strongroom_runtime.storage import Plain, Transaction


@pytest.fixture
async def auth() -> Auth:
    return await Auth().prepare()


async def login(auth: Auth, path: str, ttl: int = 60, parent: str = "") -> Issued:
    return await auth.service._tokens.create(Grant(("app",), path, "app", ttl=ttl), parent)


def lease_of(issued: Issued) -> str:
    return f"{issued.token.path}/h{issued.token.id}"


async def test_a_token_is_found_by_its_lease_as_long_as_it_can_be_used(auth: Auth) -> None:
    issued = await login(auth, "auth/app/login")
    found = await auth("LookupTokenLease", lease_id=lease_of(issued))
    assert (found.token_id, found.path, found.ttl) == (issued.token.id, "auth/app/login", 60)
    assert (found.renewable, found.HasField("last_renewal")) == (True, False)
    assert found.expire_time.seconds - found.issue_time.seconds == 60
    for wrong in (
        f"auth/app/login/{issued.token.id}",
        f"auth/other/login/h{issued.token.id}",
        f"h{issued.token.id}",
        "auth/app/login/h",
        "auth/app/login/h../x",
        "",
    ):
        await refused(auth("LookupTokenLease", lease_id=wrong), Kind.NOT_FOUND)
    auth.clock.advance(61)
    await refused(auth("LookupTokenLease", lease_id=lease_of(issued)), Kind.NOT_FOUND)


async def test_tokens_without_an_end_have_no_ttl(auth: Auth) -> None:
    issued = await login(auth, "auth/token/create", ttl=0)
    found = await auth("LookupTokenLease", lease_id=lease_of(issued))
    assert (found.ttl, found.HasField("expire_time"), found.renewable) == (0, False, False)


async def test_leases_are_listed_by_the_segments_of_their_paths(auth: Auth) -> None:
    assert list((await auth("ListTokenLeases")).keys) == []  # the first root token is none
    one, two = [await login(auth, path) for path in ("auth/app/login", "auth/token/create/role")]
    assert list((await auth("ListTokenLeases")).keys) == ["auth/"]
    assert list((await auth("ListTokenLeases", prefix="auth/")).keys) == ["app/", "token/"]
    names = (await auth("ListTokenLeases", prefix="auth/app/login")).keys
    assert list(names) == [f"h{one.token.id}"]
    await auth("RevokeToken", token=two.text)
    assert list((await auth("ListTokenLeases", prefix="auth")).keys) == ["app/"]
    auth.clock.advance(61)
    await auth.clean()
    assert await auth.stored("lease") == 0


async def test_a_page_of_tokens_is_read_without_the_others(auth: Auth) -> None:
    path = "auth/app/login"
    names = sorted([f"h{(await login(auth, path)).token.id}" for _ in range(120)])
    before = auth.store.listed
    answer = await auth("ListTokenLeases", prefix=path, after=names[60], limit=2)
    assert (list(answer.keys), answer.paged) == (names[61:63], True)
    assert auth.store.listed == before + 2
    answer = await auth("ListTokenLeases", prefix=path, after=names[-1], limit=2)
    assert (list(answer.keys), answer.paged) == ([], True)
    await refused(auth("ListTokenLeases", prefix="auth/none", limit=1), Kind.NOT_FOUND)
    # Where there are folders all names are told.
    await login(auth, f"{path}/more")
    answer = await auth("ListTokenLeases", prefix=path, after=names[60], limit=2)
    assert (len(answer.keys), answer.paged) == (121, False)


async def test_one_is_revoked_with_its_children_and_by_its_whole_id_alone(auth: Auth) -> None:
    issued = await login(auth, "auth/app/login")
    child = await login(auth, "auth/token/create", parent=issued.token.id)
    for wrong in (f"auth/x/h{issued.token.id}", issued.token.id, "auth/app/login", ""):
        await auth("RevokeTokenLease", lease_id=wrong)
    assert await auth.works(child.text)
    for _ in range(2):
        await auth("RevokeTokenLease", lease_id=lease_of(issued))
        assert not await auth.works(issued.text)
        assert not await auth.works(child.text)


async def test_many_are_revoked_by_whole_segments_of_a_prefix(auth: Auth) -> None:
    doomed = [await login(auth, "auth/app/login") for _ in range(150)]
    kept = [await login(auth, path) for path in ("auth/app2/login", "auth/token/create")]
    await auth("RevokeTokenLeases", prefix="auth/app/log")
    assert await auth.works(doomed[0].text)
    await auth("RevokeTokenLeases", prefix="auth/app/login/")
    assert not any([await auth.works(each.text) for each in doomed])
    assert all([await auth.works(each.text) for each in kept])
    await auth("RevokeTokenLeases", prefix="auth")
    assert not any([await auth.works(each.text) for each in kept])
    assert await auth.works(ROOT)


async def test_tokens_of_an_earlier_version_are_put_among_the_leases_once(
    auth: Auth, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [(await login(auth, "auth/app/login")).token for _ in range(250)]
    severed, ended = made[30], made[20]
    records, commit = auth.service._tokens.records, auth.store.commit
    found = await records.get(severed.id)
    assert found is not None
    await records.sever(*found)
    # As an earlier version left them, but for some that were made since.
    for entry in await auth.store.scan((Plain("lease"),)):
        if entry.path[-1] not in {token.id for token in made[:10]}:
            await auth.store.commit(Transaction(deletes=[entry.path]))

    async def meanwhile(transaction: Transaction) -> int:
        """One ends the moment before it is put there."""
        if any(path[-1] == ended.id for path in transaction.puts):
            monkeypatch.setattr(auth.store, "commit", commit)
            found = await records.get(ended.id)
            assert found is not None
            await records.remove(*found)
        return await commit(transaction)

    monkeypatch.setattr(auth.store, "commit", meanwhile)
    await records.list_all()
    paths = [entry.path for entry in await auth.store.scan((Plain("lease"),))]
    assert {str(path[-1]) for path in paths} == {token.id for token in made} - {
        ended.id,
        severed.id,
    }
    assert len((await auth("ListTokenLeases", prefix="auth/app/login")).keys) == 248
    await commit(Transaction(deletes=[paths[0]]))
    await records.list_all()
    assert await auth.stored("lease") == 247
