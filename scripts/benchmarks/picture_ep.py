"""README's picture of what equilibrium propagation is, computed with a small Hopfield network.

    python scripts/benchmarks/picture_ep.py --out docs/ep.png

Left: the energy of one sample, relaxed freely and then nudged. Middle: its outputs meanwhile.
Right: how far EP's gradient is from the gradient of the cost at the free equilibrium, for smaller
and smaller nudges. The true gradient is by implicit differentiation; all is in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from _common import parser_for

from eqprop.report.figure import BLUE, GREEN, GREY, INK, LIGHT, RED, pyplot, save
from eqprop.run.streams import exit_cleanly

SIZES, TARGET = (8, 16, 3), 0
DT, FREE, NUDGED, BETA = 0.18, 80, 60, 2.0
BETAS = tuple(10 ** (-k / 3) for k in range(2, 10))  # 0.2 … 1e-3
CONVERGED = 1e-13  # residual


@dataclass(frozen=True)
class Trace:
    """What the relaxation went through, a number a step."""

    energy: list[float]
    total: list[float]
    outputs: list[list[float]]


def network(seed: int) -> tuple[Any, Any]:
    """A network of random weights with one clamped sample, and the sample's target."""
    import torch

    from eqprop import RestrictedHopfield, SquaredError

    torch.manual_seed(seed)
    model = RestrictedHopfield(SIZES, SquaredError(BETA), 1, ["tanh"] * 2).double()
    with torch.no_grad():
        for connection in model.W:
            connection.weight.mul_(1.5)
    model.clamp_layer(0, torch.randn(1, SIZES[0], dtype=torch.float64))
    model.reset_state()
    target = torch.zeros(1, SIZES[-1], dtype=torch.float64)
    target[0, TARGET] = 1.0
    return model, target


def relax(model: Any, target: Any) -> Trace:
    """The free phase, then the nudged one, in the model's own Euler steps."""
    trace = Trace([], [], [])

    def note() -> None:
        trace.energy.append(float(model.energy(model.u).detach()))
        trace.total.append(float(model.E.detach()))
        trace.outputs.append(model.u[-1][0].tolist())

    for wanted, steps in ((None, FREE), (target, NUDGED)):
        model.set_C_target(wanted)
        note()
        for _ in range(steps):
            model.u_step(DT, 1.0)
            note()
    return trace


def true_gradient(model: Any, target: Any) -> Any:
    """dC/dθ at the free equilibrium, flat, by implicit differentiation.

    There ∂E/∂u = 0, so that dC/dθ = −(∂²E/∂θ∂u)ᵀ v with (∂²E/∂u²) v = ∂C/∂u, u all free layers.
    """
    import torch

    free = [layer.clone() for layer in model.u[1:]]
    sizes = [layer.shape[1] for layer in free]

    def energy(flat: Any) -> Any:
        layers = [part.unsqueeze(0) for part in flat.split(sizes)]
        return model.energy([model.u[0], *layers]).sum()

    flat = torch.cat(free, 1)[0].requires_grad_()
    hessian = torch.autograd.functional.hessian(energy, flat.detach())
    pull = torch.zeros_like(hessian[0])
    pull[-sizes[-1] :] = (model.u[-1] - target)[0]
    direction = torch.linalg.solve(hessian, pull)
    (slope,) = torch.autograd.grad(energy(flat), flat, create_graph=True)
    gradients = torch.autograd.grad(slope @ direction, list(model.parameters()))
    return -torch.cat([gradient.flatten() for gradient in gradients])


def errors(model: Any, target: Any) -> dict[str, list[float]]:
    """Relative error of the one-sided and the centered estimate for each of BETAS."""
    import torch

    from eqprop.estimator import CenteredEquilibriumPropagation, EquilibriumPropagation
    from eqprop.relaxation import Euler

    solver = Euler(dt=0.3, n_relax=5000, tol=CONVERGED, init="zeros")
    solver.free_phase(model, model.state)
    truth = true_gradient(model, target)
    parts = model, model.state, solver, model.c_energy, target

    def error(estimator: Any) -> float:
        gradient = torch.cat([g.flatten() for g in estimator.estimate(*parts).gradients])
        return float((gradient - truth).norm() / truth.norm())

    kinds = {"one-sided": EquilibriumPropagation, "centered": CenteredEquilibriumPropagation}
    return {name: [error(kind(beta)) for beta in BETAS] for name, kind in kinds.items()}


def draw_energy(ax: Any, trace: Trace) -> None:
    steps = [*range(FREE + 1), *range(FREE, FREE + NUDGED + 1)]
    rest = trace.energy[FREE]
    energy, total = ([value - rest for value in values] for values in (trace.energy, trace.total))
    nudged = slice(FREE + 1, None)
    jump = total[FREE + 1]
    ax.plot(steps, energy, color=BLUE)
    ax.plot(steps[nudged], total[nudged], color=RED)
    ax.plot([FREE] * 2, [0.0, jump], color=RED, lw=1, ls=":")
    ax.set(title="The energy falls, twice", xlabel="relaxation step",
           ylabel="energy above the free equilibrium", ylim=(-0.12 * jump, 2.4 * jump))  # fmt: skip
    note = {"textcoords": "offset points", "fontsize": 9}
    ax.annotate("+ βC", (FREE, jump), (5, -3), color=RED, **note)
    ax.annotate("E + βC", (FREE + NUDGED, total[-1]), (-2, 6), ha="right", color=RED, **note)
    ax.annotate("E", (FREE + NUDGED, energy[-1]), (-2, -13), ha="right", color=BLUE, **note)
    ax.annotate("equilibrium", (FREE, 0.0), (-5, 5), ha="right", color=BLUE, **note)
    ax.plot([FREE], [0.0], "o", color=BLUE, ms=5)


def draw_outputs(ax: Any, trace: Trace) -> None:
    steps = [*range(FREE + 1), *range(FREE, FREE + NUDGED + 1)]
    for k in range(SIZES[-1]):
        wanted = k == TARGET
        values = [output[k] for output in trace.outputs]
        ax.plot(steps, values, color=GREEN if wanted else GREY, lw=2.2 if wanted else 1.2)
    ax.axhline(1.0, color=GREEN, ls="--", lw=1)
    ax.axhline(0.0, color=GREY, ls="--", lw=1)
    ax.set(title="The outputs give way", xlabel="relaxation step", ylabel="state of the outputs")
    low = min(min(output) for output in trace.outputs)
    ax.set_ylim(low - 0.1, 1.45)
    end = FREE + NUDGED
    texts = (("target 1", 1.0, GREEN), ("targets 0", 0.0, GREY))
    for text, height, colour in texts:
        ax.annotate(text, (end, height), (0, 3), textcoords="offset points", ha="right",
                    va="bottom", color=colour, fontsize=9)  # fmt: skip
    final = trace.outputs[-1][TARGET]
    free = trace.outputs[FREE][TARGET]
    ax.plot([FREE, end], [free, final], "o", color=GREEN, ms=5, clip_on=False)
    ax.annotate("u⁰", (FREE, free), (-4, 5), textcoords="offset points", ha="right", color=GREEN)
    ax.annotate("uᵝ", (end, final), (5, 0), textcoords="offset points", va="center", color=GREEN)


def mark_phases(ax: Any) -> None:
    """Shade the nudged phase and name both above the axes' lower edge."""
    ax.axvspan(FREE, FREE + NUDGED, color="#faf3ee", zorder=0)
    ax.set_xlim(0, FREE + NUDGED)
    ax.set_xticks([0, FREE, FREE + NUDGED])
    style = {"transform": ax.get_xaxis_transform(), "ha": "center", "fontsize": 9, "color": INK}
    ax.text(FREE / 2, 0.96, "free phase", va="top", **style)
    ax.text(FREE + NUDGED / 2, 0.96, f"nudged, β = {BETA:g}", va="top", **style)


def draw_errors(ax: Any, found: dict[str, list[float]]) -> None:
    for (name, values), colour, order in zip(found.items(), (RED, BLUE), (1, 2), strict=True):
        last = [values[-1] * (beta / BETAS[-1]) ** order for beta in BETAS]
        ax.plot(BETAS, last, color=LIGHT, lw=5, zorder=1)
        ax.plot(BETAS, values, "o", color=colour, ms=4.5)
        power = "β" if order == 1 else "β²"
        place = {"x": 0.05, "y": 0.83} if order == 1 else {"x": 0.97, "y": 0.36, "ha": "right"}
        ax.text(**place, s=f"{name}: ∝ {power}", color=colour, transform=ax.transAxes)
    ax.set(xscale="log", yscale="log", title="Their contrast is the gradient",
           xlabel="nudging strength β", ylabel="relative error of EP's gradient")  # fmt: skip
    ax.set_xlim(BETAS[-1] / 1.6, 1.0)
    ax.minorticks_off()


def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--out", required=True, metavar="PATH", help="the figure to write")
    parser.add_argument("--seed", type=int, default=2, help="of the weights and the sample")
    args = parser.parse_args()
    plt = pyplot()
    model, target = network(args.seed)
    trace = relax(model, target)
    found = errors(model, target)
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.7), layout="constrained")
    figure.get_layout_engine().set(wspace=0.06)
    draw_energy(axes[0], trace)
    draw_outputs(axes[1], trace)
    for ax in axes[:2]:
        mark_phases(ax)
    draw_errors(axes[2], found)
    save(figure, args.out)


if __name__ == "__main__":
    exit_cleanly(main)
