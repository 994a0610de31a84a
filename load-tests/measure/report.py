"""From samples to figures: medians with their range, ratios, the marks to reach, and the table for the README."""

from dataclasses import dataclass
from statistics import median

from . import gateways as products
from . import load

# A sample is called noisy when other programs took more than this share of the gateway's CPU.
NOISY_SHARE = 0.03
TITLES = {name: gateway.title for name, gateway in products.KNOWN.items()}


@dataclass(frozen=True)
class Spread:
    """Median and range of one figure over the rounds."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values):
        return Spread(median(values), min(values), max(values)) if values else None

    def show(self, digits):
        if self.low == self.high:
            return f"{self.median:.{digits}f}"
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}–{self.high:.{digits}f})"


@dataclass(frozen=True)
class Figure:
    """One row of the table: a title, which scenarios' samples count (`None`: all), how a sample is read."""

    title: str
    scenario: object
    read: object
    digits: int

    def of(self, samples, gateway):
        return Spread.of([self.read(sample) for sample in samples
                          if sample.gateway == gateway and self.scenario in (None, sample.scenario)])


def cpu(scenario):
    return Figure(f"CPU per request, {load.ALL[scenario].title}, µs", scenario, lambda it: it.cpu_us_per_request, 1)


IDLE_RSS = Figure("memory after start (RSS), MiB", None, lambda it: it.rss_idle / 1024, 1)
LOADS = ("h1", "h2", "tls")
# Here the next request waits for an answer, so the rate is the gateway's; new connections come at a fixed rate.
CLOSED_LOOPS = ("h1", "h2")
FIGURES = (
    *(cpu(scenario) for scenario in LOADS),
    *(Figure(f"requests per second, {load.ALL[scenario].title}", scenario, lambda it: it.requests_per_second, 0)
      for scenario in CLOSED_LOOPS),
    *(Figure(f"gateway's share of its CPU, {load.ALL[scenario].title}, %", scenario,
             lambda it: 100 * it.gateway_share, 0) for scenario in CLOSED_LOOPS),
    IDLE_RSS,
    Figure("the same, shared pages divided (PSS), MiB", None, lambda it: it.pss_idle / 1024, 1),
    Figure("memory after the HTTP/1.1 load (RSS), MiB", "h1", lambda it: it.rss_after / 1024, 1),
    Figure("memory after the HTTP/2 load (RSS), MiB", "h2", lambda it: it.rss_after / 1024, 1),
    Figure("memory per idle TLS connection, KiB", "idle", lambda it: it.connection_bytes / 1024, 1),
)


@dataclass(frozen=True)
class Mark:
    """One mark: scoregate's figure against the best of some peers' (or, without peers, as it is); or that of a variant."""

    figure: Figure
    limit: float
    peers: tuple = ()
    gateway: str = "scoregate"

    def judge(self, samples):
        """The row of the table of marks: what, limit, reached value, verdict."""
        against = "the better of " + " and ".join(TITLES[peer] for peer in self.peers)
        what = self.figure.title.rpartition(",")[0]
        if self.gateway != "scoregate":
            what = f"{TITLES[self.gateway]}: {what}"
        limit = f"≤ {self.limit:g} MiB"
        if self.peers:
            limit = f"≤ {self.limit:.2f} × " + (against if len(self.peers) > 1 else TITLES[self.peers[0]])
        own = self.figure.of(samples, self.gateway)
        theirs = [self.figure.of(samples, peer) for peer in self.peers]
        if own is None or None in theirs:
            return what, limit, "", "not measured"
        reached = own.median / min(peer.median for peer in theirs) if theirs else own.median
        return what, limit, f"{reached:.2f}", "met" if reached <= self.limit else "**missed**"


# What records cost beyond the file: writing them ahead, and every exporter at work.
VARIANT_LIMITS = {"scoregate-write-ahead": 1.30, "scoregate-exporting": 1.10, "scoregate-exporting-ahead": 1.30}
MARKS = (
    Mark(cpu("h1"), 0.95, ("nginx", "haproxy")),
    Mark(cpu("h1"), 0.45, ("envoy",)),
    Mark(cpu("h2"), 0.85, ("nginx", "haproxy")),
    Mark(cpu("tls"), 0.70, ("nginx", "haproxy")),
    *(Mark(cpu(scenario), limit, ("scoregate",), variant)
      for variant, limit in VARIANT_LIMITS.items() for scenario in ("h1", "h2")),
    Mark(IDLE_RSS, 20),
)


def markdown(samples, facts):
    """The whole report."""
    gateways = [name for name in TITLES if any(sample.gateway == name for sample in samples)]
    return "\n\n".join(filter(None, [
        f"# scoregate beside its peers, {facts['date']}",
        facts["caveat"],
        figures_table(samples, gateways),
        ratio_table(samples, gateways),
        marks_table(samples, gateways),
        checks(samples, gateways),
        machine(facts),
    ])) + "\n"


def figures_table(samples, gateways):
    rows = [(figure.title, *(figure.of(samples, name).show(figure.digits) for name in gateways))
            for figure in FIGURES if figure.of(samples, gateways[0])]
    return "Median (lowest–highest) over the rounds.\n\n" + table(["", *(TITLES[name] for name in gateways)], rows)


def ratio_table(samples, gateways):
    """scoregate divided by each peer, medians; in brackets the range of the ratios taken round by round."""
    peers = [name for name in gateways if not name.startswith("scoregate")]
    if "scoregate" not in gateways or not peers:
        return ""
    rows = [(f"{load.ALL[scenario].title}", *(ratio(samples, scenario, peer) for peer in peers))
            for scenario in LOADS if cpu(scenario).of(samples, "scoregate")]
    if not rows:
        return ""
    return "CPU per request, scoregate divided by the peer.\n\n" + table(["", *(TITLES[it] for it in peers)], rows)


def ratio(samples, scenario, peer):
    figure = cpu(scenario)
    rounds = sorted({sample.round for sample in samples})
    pairs = [[figure.of([it for it in samples if it.round == number], name) for name in ("scoregate", peer)]
             for number in rounds]
    of_rounds = [own.median / other.median for own, other in pairs]
    of_medians = figure.of(samples, "scoregate").median / figure.of(samples, peer).median
    return Spread(of_medians, min(of_rounds), max(of_rounds)).show(2)


def marks_table(samples, gateways):
    if "scoregate" not in gateways:
        return ""
    rows = [mark.judge(samples) for mark in MARKS if mark.gateway in gateways]
    return table(["mark", "limit", "reached", "verdict"], rows)


def checks(samples, gateways):
    """What makes the figures comparable, and what speaks against them."""
    lines = []
    for name in gateways:
        own = [sample for sample in samples if sample.gateway == name]
        calls, records = sum(it.calls for it in own), sum(it.records for it in own)
        faults = sorted({fault for sample in own for fault in sample.record_faults})
        verdict = "equal, all JSON, every id its own" if not faults else "**NOT THE SAME JOB**: " + "; ".join(faults)
        lines.append(f"- {TITLES[name]}: {calls} calls, {records} records in its log: {verdict}")
    # Memory does not depend on what else runs.
    shares = [sample.others_share for sample in samples if sample.scenario in LOADS]
    if shares:
        noisy = sum(share > NOISY_SHARE for share in shares)
        warning = "; **do not quote these figures**" if noisy else ""
        lines.append(f"- other programs took more than {NOISY_SHARE:.0%} of the gateway's CPU in {noisy} of "
                     f"{len(shares)} samples, at most {max(shares):.0%}{warning}")
    return "\n".join(lines)


def machine(facts):
    lines = [f"- {name}: {value}" for name, value in facts["machine"].items()]
    lines += [f"- {TITLES.get(name, name)}: {value}" for name, value in facts["versions"].items()]
    lines += [f"- {name}: {value}" for name, value in facts["settings"].items()]
    return "\n".join(lines)


def table(head, rows):
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    lines.insert(1, "| --- |" + " ---: |" * (len(head) - 1))
    return "\n".join(lines)


def summary(samples):
    """The figures as data: title -> gateway -> median, low, high."""
    gateways = {sample.gateway for sample in samples}
    return {figure.title: {name: vars(spread) for name in sorted(gateways) if (spread := figure.of(samples, name))}
            for figure in FIGURES}
