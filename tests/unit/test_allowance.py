"""Requests are counted for whom they are made, and refused beyond what is allowed."""

import asyncio

import pytest

from importer.api.failure import Failure
from importer.sources import allowance


async def test_every_task_within_draws_on_one_allowance() -> None:
    async def one() -> None:
        allowance.ask()
        allowance.took(10)

    with allowance.granted(3) as asked:
        await asyncio.gather(one(), one(), one())
        assert (asked.requests, asked.received, asked.spent) == (3, 30, False)
        with pytest.raises(Failure) as caught:
            await asyncio.create_task(one())
        assert (caught.value.code, asked.requests, asked.spent) == ("protocol", 3, True)


def test_where_nothing_is_granted_nothing_is_counted() -> None:
    for _ in range(100):
        allowance.ask()
    allowance.took(1)
    with allowance.granted(1) as asked:
        assert asked.requests == 0
