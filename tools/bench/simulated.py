"""Layouts in simulated time: the production router and workers over devices that only take time (longhaul_load_sim)."""

import os
import subprocess

import layouts
import mixes
from open_loop import Answer

REFUSED_CODES = {8: 429, 14: 503}  # of gRPC, as the API says them
ERROR = 500


class SimulatedCluster:
    def __init__(self, layout, arguments):
        self.layout = layout
        self.devices = sum(layouts.LAYOUTS[layout])
        prefill, decode = layouts.LAYOUTS[layout]
        self._command = [os.path.join(arguments.bin, "longhaul_load_sim"), f"--prefill={prefill}", f"--decode={decode}",
                         f"--name_tokens={mixes.BLOCK_TOKENS}", f"--drain_s={arguments.drain}", *arguments.simulate_flags.split()]
        if arguments.step_target_ms:
            self._command.append(f"--step_target_ms={arguments.step_target_ms:g}")

    def answers(self, arrivals):
        """Of [(seconds, MixRequest)], in order."""
        lines = [f"{round(1e6 * due)} {request.prompt_tokens} {request.output_tokens} {' '.join(map(str, request.blocks))}\n"
                 for due, request in arrivals]
        output = subprocess.run(self._command, input="".join(lines), capture_output=True, text=True, check=True).stdout
        return [self._answer(due, line) for (due, _), line in zip(arrivals, output.splitlines(), strict=True)]

    @staticmethod
    def _answer(due, line):
        first_us, last_us, tokens, whole, code = map(int, line.split())
        answer = Answer(due, sent=due, first=1e-6 * first_us, last=1e-6 * last_us, events=tokens, whole=bool(whole))
        answer.status = REFUSED_CODES.get(code, ERROR) if code else 200
        if code:
            answer.error = f"gRPC's status {code}"
        return answer

    def alone(self, tokens):
        """Seconds to the first token of a prompt alone."""
        request = mixes.MixRequest(tokens, 1, tuple(range(mixes.blocks_of(tokens))))
        return self.answers([(0.0, request)])[0].first
