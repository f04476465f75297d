"""PasswordPolicyService: policies by which passwords are made."""

from strongroom.dbcreds.v1 import passwords_pb2 as pb
from strongroom_dbcreds.policies import PasswordPolicies
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import not_found
from strongroom_runtime.requests import page


class PasswordPolicyHandlers:
    """Answers requests to sys/policies/password."""

    def __init__(self, policies: PasswordPolicies) -> None:
        self._policies = policies

    async def ListPasswordPolicies(
        self, request: pb.ListPasswordPoliciesRequest, context: RequestContext
    ) -> pb.ListPasswordPoliciesResponse:
        names = await self._policies.names()
        return pb.ListPasswordPoliciesResponse(keys=page(names, request.after, request.limit))

    async def ReadPasswordPolicy(
        self, request: pb.ReadPasswordPolicyRequest, context: RequestContext
    ) -> pb.ReadPasswordPolicyResponse:
        text = await self._policies.get(request.name)
        if text is None:
            raise not_found("policy does not exist")
        return pb.ReadPasswordPolicyResponse(policy=text)

    async def WritePasswordPolicy(
        self, request: pb.WritePasswordPolicyRequest, context: RequestContext
    ) -> pb.WritePasswordPolicyResponse:
        await self._policies.write(request.name, request.policy)
        return pb.WritePasswordPolicyResponse()

    async def DeletePasswordPolicy(
        self, request: pb.DeletePasswordPolicyRequest, context: RequestContext
    ) -> pb.DeletePasswordPolicyResponse:
        await self._policies.delete(request.name)
        return pb.DeletePasswordPolicyResponse()

    async def GeneratePassword(
        self, request: pb.GeneratePasswordRequest, context: RequestContext
    ) -> pb.GeneratePasswordResponse:
        if await self._policies.get(request.name) is None:
            raise not_found("policy does not exist")
        password = await self._policies.generate(request.name)
        return pb.GeneratePasswordResponse(password=password)
