"""The length-controlled win rate of a few duels, for the test in crates/eval/src/length_controlled.rs.

A logistic regression of wins on tanh(difference of lengths / its standard deviation), fitted by L-BFGS in float64; its
interval from the second derivatives that autograd finds. Prints what the test expects.
"""

import torch

torch.set_default_dtype(torch.float64)

# (win of the first: 1, 0 or 1/2; its length; the other's length)
DUELS = [
    (1, 120, 60), (1, 95, 40), (0, 30, 90), (1, 210, 100), (0.5, 70, 75), (0, 55, 20), (1, 80, 82), (1, 64, 10),
    (0, 12, 48), (1, 33, 90), (0, 100, 130), (0.5, 41, 17), (1, 150, 149), (0, 77, 60), (1, 88, 20), (1, 19, 27),
]


def fit(wins, x):
    beta = torch.zeros(x.shape[1], requires_grad=True)

    def loss(beta):
        logits = x @ beta
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, wins, reduction="sum")

    optimizer = torch.optim.LBFGS(
        [beta], max_iter=500, tolerance_grad=1e-14, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        value = loss(beta)
        value.backward()
        return value

    optimizer.step(closure)
    covariance = torch.linalg.inv(torch.autograd.functional.hessian(loss, beta.detach()))
    return beta.detach(), covariance[0, 0].sqrt()


def report(name, duels):
    wins = torch.tensor([float(win) for win, _, _ in duels])
    difference = torch.tensor([float(a - b) for _, a, b in duels])
    x = torch.tanh(difference / difference.std())
    beta, error = fit(wins, torch.stack([torch.ones_like(x), x], dim=1))
    z = 1.959963984540054
    interval = [torch.sigmoid(beta[0] + sign * z * error).item() for sign in (-1, 1)]
    print(name, "raw", wins.mean().item(), "controlled", torch.sigmoid(beta[0]).item(), "interval", interval)


report("all sixteen:", DUELS)
report("the first eight:", DUELS[:8])
