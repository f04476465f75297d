"""When a password is changed, and what becomes of an attempt. Times are wall time in seconds since 1970, in UTC."""

import datetime

import msgspec
from cronsim import CronSim, CronSimError

from strongroom_runtime.errors import Kind, ServiceError, invalid

SHORTEST_PERIOD = 5
SHORTEST_WINDOW = 3_600


class Plan(msgspec.Struct, frozen=True):
    """When it is changed: every `period` seconds, or by the cron expression `schedule`; neither for on demand alone.

    `window` is for how many seconds after the scheduled time a change may begin; 0 for until it succeeds.
    """

    period: int = 0
    schedule: str = ""
    window: int = 0

    def check(self) -> None:
        """Raises where the plan cannot be kept.

        Raises:
            ServiceError: INVALID.
        """
        if self.period and self.schedule:
            raise invalid("rotation_period and rotation_schedule: only one may be given")
        if self.period and self.period < SHORTEST_PERIOD:
            raise invalid(f"rotation_period: must be {SHORTEST_PERIOD} seconds or more")
        if self.window and not self.schedule:
            raise invalid("rotation_window: needs rotation_schedule")
        if self.window and self.window < SHORTEST_WINDOW:
            raise invalid(f"rotation_window: must be {SHORTEST_WINDOW} seconds (1h) or more")
        if self.schedule:
            if len(self.schedule.split()) != 5:
                raise invalid("rotation_schedule: takes a cron expression of five fields")
            try:
                self.next(0.0)
            except CronSimError:
                raise invalid("rotation_schedule: takes a cron expression of five fields") from None

    def next(self, after: float) -> float:
        """Returns the first planned time after another; 0 for none."""
        if self.period:
            return after + self.period
        if not self.schedule:
            return 0.0
        start = datetime.datetime.fromtimestamp(after, datetime.UTC)
        try:
            return next(CronSim(self.schedule, start)).timestamp()
        except StopIteration:
            raise CronSimError("no such day") from None


class Account(msgspec.Struct, frozen=True):
    """How things stand with what a user logs in with.

    Args:
        current: what the database was last known to take, by the fields of the contract.
        pending: what the database is being told, or may have been told; None where nothing is under way.
        rotated: when `current` was set; 0 for never.
        planned: when it is to be changed; 0 for on demand alone.
        due: when somebody is to look at it: `planned`, or the next attempt; 0 for never.
        attempts: failed attempts since the last success.
        error: what came of the last.
        claim: the attempt that is under way; empty for none.
        claimed_until: until when it may be.
    """

    current: dict[str, str] = {}
    pending: dict[str, str] | None = None
    rotated: float = 0.0
    planned: float = 0.0
    due: float = 0.0
    attempts: int = 0
    error: str = ""
    claim: str = ""
    claimed_until: float = 0.0

    def __repr__(self) -> str:
        return "Account(…)"

    def claimed(self, now: float) -> bool:
        """Whether an attempt is under way."""
        return bool(self.claim) and now < self.claimed_until


def check_idle(account: Account, now: float) -> None:
    """Raises while a change is under way: a password given by hand would make the new one unknown.

    Raises:
        ServiceError: FAILED_PRECONDITION.
    """
    if account.claimed(now):
        raise ServiceError(
            Kind.FAILED_PRECONDITION, "password: is being rotated at the moment; try again"
        )


def planned(account: Account, plan: Plan, now: float) -> Account:
    """Returns an account under a plan that was just written."""
    if account.pending is not None:
        return account  # what is under way plans anew when it is over
    start = account.rotated if plan.period and account.rotated else now
    time = plan.next(start)
    return msgspec.structs.replace(account, planned=time, due=time)


def imported(account: Account, now: float) -> Account:
    """Returns an account whose credential was never changed here, and is to be at once; others as they are."""
    if account.rotated or account.pending is not None:
        return account
    return msgspec.structs.replace(account, due=now)


def missed(account: Account, plan: Plan, now: float) -> Account | None:
    """Returns an account whose window is over before anything was begun, planned anew; None where it may begin."""
    if account.pending is not None or not plan.window or now <= account.planned + plan.window:
        return None
    time = plan.next(now)
    return msgspec.structs.replace(account, planned=time, due=time, error="the window was missed")


def claimed(
    account: Account, pending: dict[str, str], by: str, now: float, seconds: float
) -> Account:
    """Returns an account whose new credential is recorded before the database is told.

    One that was recorded before, and of which it is not known whether the database has it, is told again.
    """
    until = now + seconds
    return msgspec.structs.replace(
        account, pending=account.pending or pending, claim=by, claimed_until=until, due=until
    )


def settled(account: Account, plan: Plan, now: float) -> Account:
    """Returns an account whose new credential the database has."""
    time = plan.next(now)
    return Account(current=account.pending or account.current, rotated=now, planned=time, due=time)


def failed(account: Account, error: str, now: float, wait: float) -> Account:
    """Returns an account whose attempt failed: the new credential stays recorded, since the database may have it."""
    return msgspec.structs.replace(
        account,
        attempts=account.attempts + 1,
        error=error,
        due=now + wait,
        claim="",
        claimed_until=0.0,
    )
