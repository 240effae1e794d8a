"""What the launcher tells a person when it cannot go on: what, why, how to fix."""


class Failure(Exception):
    """Ends the command with three lines on standard error and a non-zero exit code."""

    def __init__(self, what, why="", fix="", exit_code=1):
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix
        self.exit_code = exit_code

    def __str__(self):
        lines = [f"error: {self.what}"]
        if self.why:
            lines.append(f"why:   {self.why}")
        if self.fix:
            lines.append(f"fix:   {self.fix}")
        return "\n".join(line.replace("\n", "\n       ") for line in lines)
