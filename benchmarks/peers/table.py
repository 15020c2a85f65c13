"""What was compared, as Markdown."""

IDLE = 0.1  #: cores that other processes may use before a table is called noisy


def comparison(rows, memory):
    """The rows as Markdown."""
    head = ["#", "model", "MB", "test accuracy", "against the teacher", "McNemar p"]
    head += ["model alone: p50 ms", "p99 ms", "over eager", "over INT8", "text to label: p50 ms", "over eager"]
    head += ["over INT8", "dominated by", *(["memory, MB"] if memory else [])]
    lines = [head, ["---"] * len(head)]
    front = {row["number"] for row in rows if not row["dominated_by"]}
    for row in rows:
        teacher = row["key"] == "eager"
        cells = [str(row["number"]), row["name"], f"{row['megabytes']:.1f}", shown(row["accuracy"], 100)]
        cells += ["–", "–"] if teacher else [shown(row["over_teacher"], 100), f"{row['mcnemar']:.2g}"]
        for scope, parts in (("alone", ("p50_ms", "p99_ms")), ("whole", ("p50_ms",))):
            timing = row[scope] or {}
            cells += [f"{timing[part][0]:.2f}" if part in timing else "–" for part in parts]
            cells += [f"{timing[part][0]:.2f}x" if part in timing else "–" for part in ("over_eager", "over_int8")]
        cells += [", ".join(str(number) for number in row["dominated_by"] if number in front) or "nothing"]
        cells += [f"{memory[row['key']] / 1e6:.0f}"] if memory else []
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def shown(interval, scale):
    value, low, high = (scale * part + 0.0 for part in interval)
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def flips(name, groups):
    """Flips of one model as Markdown."""
    lines = [f"Answers of {name} against the teacher's:", ""]
    lines += ["| texts, by the teacher's answer and by length | n | changed | lost | won |", "|---|---|---|---|---|"]
    lines += [f"| {row['group']} | {row['n']} | {row['changed']} | {row['lost']} | {row['won']} |" for row in groups]
    return "\n".join(lines)


def circumstances(session, rows, threads):
    """How a table was measured, in words."""
    _, rounds, texts = session["seconds_whole"].shape
    noise = max(row["whole"]["noise"] for row in rows)
    words = (
        f"{threads} thread{'s' if threads > 1 else ''}, batch 1, {texts} texts of {session['timed_tokens']:.1f} tokens "
        f"on average, {rounds} rounds; accuracy on {len(session['tokens']):,} texts. Quartiles of rounds differ by up "
        f"to {100 * noise:.0f} %"
    )
    if session["others"] <= IDLE:
        return f"{words}."
    return f"{words}. **Noisy**: other processes used {session['others']:.1f} cores meanwhile."
