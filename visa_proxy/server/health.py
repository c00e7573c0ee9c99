"""GET /healthz, /readyz and /metrics."""

from __future__ import annotations

import hmac
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from visa_proxy.engines.voices import READY, WAITING
from visa_proxy.server.auth import bearer
from visa_proxy.server.engine import EngineState
from visa_proxy.server.gateway import Gateway
from visa_proxy.server.metrics import CONTENT_TYPE

LOOPBACK = ("127.0.0.1", "::1")


def health_routes(gateway: Gateway) -> list[Route]:
    """Open to all, as probes and scrapers expect; what is wrong in a policy file is shown to loopback and the admin key only."""

    async def healthz(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(request: Request) -> Response:
        checks = _checks(gateway, detailed=_trusted(request, gateway.config.admin_key))
        ready = checks["components"]["status"] in ("ready", "not needed")
        rewriter = checks["rewriter"]
        voices = all(state == READY for state in rewriter.get("adapters", {}).values())
        stored = checks.get("store", {}).get("status") != "unavailable"
        good = ready and checks["policies"]["status"] == "ok" and rewriter["status"] != "unavailable" and voices and stored
        status = ("ok" if good else "degraded") if ready else "not ready"
        return JSONResponse({"status": status, "checks": checks}, status_code=200 if ready else 503)

    async def metrics(request: Request) -> Response:
        engine = gateway.engine
        gateway.metrics.policy_problems.set(len(gateway.watcher.problems))
        if gateway.store is not None and gateway.metrics.store is not None:
            health = gateway.store.health
            gateway.metrics.store.queue.set(health.queued)
            gateway.metrics.store.up(health.up)  # one that hangs tells of nothing
        gateway.metrics.rewriter(engine or EngineState(launched=False, ready=False))
        return Response(gateway.metrics.render(), headers={"content-type": CONTENT_TYPE.decode()})

    return [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)]


def _checks(gateway: Gateway, *, detailed: bool) -> dict[str, dict[str, Any]]:
    problems = gateway.watcher.problems
    policies: dict[str, Any] = {
        "status": "error" if problems else "ok",
        "tenants": len(gateway.watcher.current.tenants),
        "problems": problems if detailed else len(problems),
    }
    engine = gateway.engine
    rewriter: dict[str, Any] = {"status": "external"}
    if engine is not None and engine.launched:
        rewriter = {"status": "ready" if engine.ready else "unavailable", "restarts": engine.restarts}
    if engine is not None and engine.adapters:
        # What a server says of an adapter may name paths.
        rewriter["adapters"] = {name: _brief(state, detailed=detailed) for name, state in engine.adapters.items()}
    checks = {"policies": policies, "components": {"status": gateway.components.state}, "rewriter": rewriter}
    if gateway.store is not None:
        health = gateway.store.health
        checks["store"] = {"status": "ready" if health.up else "unavailable", "queued": health.queued, "dropped": health.dropped}
        if detailed and health.problem:
            checks["store"]["problem"] = health.problem
    return checks


def _brief(state: str, *, detailed: bool) -> str:
    return state if detailed or state in (READY, WAITING) else "failed"


def _trusted(request: Request, admin_key: str | None) -> bool:
    if request.client is not None and request.client.host in LOOPBACK:
        return True
    given = bearer(dict(request.scope["headers"])) or ""
    return admin_key is not None and hmac.compare_digest(given.encode(), admin_key.encode())
