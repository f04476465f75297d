"""UserpassService: the contract to and from users."""

from strongroom.auth.v1 import userpass_pb2 as pb
from strongroom_auth import changes, old_names, settings
from strongroom_auth.lockout import LONGEST_COUNTED, Lockouts
from strongroom_auth.settings import Settings
from strongroom_auth.tokens import bounds, rules
from strongroom_auth.tokens.messages import auth_message
from strongroom_auth.tokens.records import Token
from strongroom_auth.tokens.tokens import RenewalRule, Tokens
from strongroom_auth.userpass.passwords import Passwords
from strongroom_auth.userpass.users import User, Users, user_path
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import denied, invalid, not_found
from strongroom_runtime.mount_marks import unmoved
from strongroom_runtime.requests import check_right, mount_of, page

METHOD = "userpass"
_LOGIN_ATTEMPTS = 5  # each of which hashes a password
_OLD_NAMES = {
    "ttl": "token_ttl",
    "max_ttl": "token_max_ttl",
    "bound_cidrs": "token_bound_cidrs",
    "policies": "token_policies",
}


class UserpassHandlers:
    """Answers requests to userpass mounts."""

    def __init__(
        self, users: Users, passwords: Passwords, tokens: Tokens, lockouts: Lockouts
    ) -> None:
        self._users = users
        self._lockouts = lockouts
        self._passwords = passwords
        self._tokens = tokens
        tokens.renewers[METHOD] = self._renewal

    async def ListUsers(
        self, request: pb.ListUsersRequest, context: RequestContext
    ) -> pb.ListUsersResponse:
        names = await self._users.names(mount_of(context).uuid)
        return pb.ListUsersResponse(keys=page(names, request.after, request.limit))

    async def ReadUser(
        self, request: pb.ReadUserRequest, context: RequestContext
    ) -> pb.ReadUserResponse:
        found = await self._users.get(mount_of(context).uuid, _clean(request.username))
        if found is None:
            raise not_found()
        known = found[0].settings
        response = pb.ReadUserResponse(settings=settings.message(known))
        old_names.show(response, response.settings, _OLD_NAMES, known.old)
        return response

    async def WriteUser(
        self, request: pb.WriteUserRequest, context: RequestContext
    ) -> pb.WriteUserResponse:
        password = await self._given(request.password, request.password_hash)
        name = _clean(request.username)

        async def change(before: User | None) -> User:
            check_right(context, before is not None)
            if before is None:
                bounds.check_new_name("username", name)
            if before is None and password is None:
                raise invalid("missing password")
            known = before.settings if before else Settings()
            hashed = password or (before.password if before else b"")
            return User(hashed, settings.changed(known, request, _OLD_NAMES))

        await self._users.change(mount_of(context).uuid, name, change)
        return pb.WriteUserResponse()

    async def DeleteUser(
        self, request: pb.DeleteUserRequest, context: RequestContext
    ) -> pb.DeleteUserResponse:
        await self._users.delete(mount_of(context).uuid, _clean(request.username))
        return pb.DeleteUserResponse()

    async def WritePassword(
        self, request: pb.WritePasswordRequest, context: RequestContext
    ) -> pb.WritePasswordResponse:
        password = await self._given(request.password, request.password_hash)
        if password is None:
            raise invalid("missing password")

        async def change(before: User | None) -> User:
            return User(password, _existing(before).settings)

        await self._users.change(mount_of(context).uuid, _clean(request.username), change)
        return pb.WritePasswordResponse()

    async def WriteUserPolicies(
        self, request: pb.WriteUserPoliciesRequest, context: RequestContext
    ) -> pb.WriteUserPoliciesResponse:
        async def change(before: User | None) -> User:
            user = _existing(before)
            # Of both names none may be there: then nothing is changed, as in Vault.
            given = pb.WriteUserRequest()
            if request.HasField("token_policies"):
                given.settings.token_policies.CopyFrom(request.token_policies)
            if request.HasField("policies"):
                given.policies.CopyFrom(request.policies)
            return User(user.password, settings.changed(user.settings, given, _OLD_NAMES))

        await self._users.change(mount_of(context).uuid, _clean(request.username), change)
        return pb.WriteUserPoliciesResponse()

    async def LoginUser(
        self, request: pb.LoginUserRequest, context: RequestContext
    ) -> pb.LoginUserResponse:
        # Where the user was changed, or is gone, since it was looked at, what it is now counts.
        return await changes.repeated(_LOGIN_ATTEMPTS, lambda: self._login(request, context))

    async def _login(
        self, request: pb.LoginUserRequest, context: RequestContext
    ) -> pb.LoginUserResponse:
        """Makes a token, if the user stands as it was looked at.

        Raises:
            ConflictError: it does not.
            ServiceError: INVALID, DENIED.
        """
        mount, name, now = mount_of(context), _clean(request.username), self._tokens.now()
        if not request.password:
            raise invalid("missing password")
        if await self._lockouts.locked(mount, name, now):
            raise denied()
        user, revision = await self._users.get(mount.uuid, name) or (None, 0)
        if not await self._passwords.matches(request.password, user.password if user else None):
            if user is not None or len(name) <= LONGEST_COUNTED:
                await self._lockouts.count(mount, name, now)
            raise invalid("invalid username or password")
        # Looked at again: others may have used up the tries while this one was checked.
        failures = await self._lockouts.failures(mount, name)
        if user is None or self._lockouts.rule(mount).locked(failures, now):
            raise denied()
        if not rules.address_allowed(user.settings.cidrs, context.client_address):
            raise denied()
        grant, warnings = settings.grant(
            user.settings,
            context,
            now=now,
            display_name=f"{mount.path.removeprefix('auth/').rstrip('/')}-{name}",
            meta={"username": name},
            login={"method": METHOD, "mount": mount.uuid, "name": name},
        )
        issued, transaction = self._tokens.prepare(grant)
        transaction.expect[user_path(mount.uuid, name)] = revision
        transaction.expect |= await unmoved(self._users.store, mount)
        if failures is not None:
            transaction.deletes.append(self._lockouts.path(mount, name))
        await self._users.store.commit(transaction)
        auth = auth_message(issued.token, issued.text, issued.token.ttl)
        return pb.LoginUserResponse(auth=auth, warnings=warnings)

    async def _given(self, password: str, password_hash: str) -> bytes | None:
        if password and password_hash:
            raise invalid("password and password_hash: only one may be given")
        if password_hash:
            return await self._passwords.given(password_hash)
        return await self._passwords.hash(password) if password else None

    async def _renewal(self, token: Token) -> RenewalRule:
        found = await self._users.get(token.login["mount"], token.login["name"])
        if found is None:
            raise invalid("the user of this token does not exist any more")
        user = found[0]
        if rules.with_default(user.settings.policies, user.settings.no_default) != token.policies:
            raise invalid("policies have changed, not renewing")
        return settings.renewal(user.settings)


def _clean(name: str) -> str:
    """Returns the one form of a user's name: for storage, counting and login alike."""
    return name.strip().lower()


def _existing(user: User | None) -> User:
    if user is None:
        raise invalid("username: does not exist")
    return user
