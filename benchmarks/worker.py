"""Work in another process: tasks are prepared, run when asked, and timed where they run.

One worker runs our side and one the peers', each in its own environment. They talk in lines of
JSON, and only one of them works at a time.
"""
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from time import perf_counter


class Failed(RuntimeError):
    """A task that could not be prepared or run; the message is its last line."""


class Worker:
    """A worker as the driver sees it: `python script` in the environment of `python`."""

    def __init__(self, python, script):
        self.process = subprocess.Popen(
            [str(python), str(Path(__file__).with_name(script))], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True)

    def ask(self, **request):
        try:
            self.process.stdin.write(json.dumps(request) + '\n')
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ''
        if not line:
            raise Failed(f'the worker ended with code {self.process.wait()}')
        answer = json.loads(line)
        if 'error' in answer:
            raise Failed(answer['error'])
        return answer

    def prepare(self, task, arguments):
        """Sets a task up and runs it once; the answer has the seconds of that first run."""
        return self.ask(do='prepare', task=task, arguments=arguments)

    def run(self, task, arguments):
        """Runs a prepared task: its 'seconds', the 'amount' of work, and what else it tells."""
        return self.ask(do='run', task=task, arguments=arguments)

    def forget(self):
        """Frees the memory of all prepared tasks."""
        self.ask(do='forget')

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def serve(tasks):
    """Answers a :class:`Worker` until it closes.

    Args:
        tasks: functions by name. Called with its arguments, one returns a function that does the
            work once and returns how much it was, or a dict with that as 'amount' and further
            things to tell.
    """
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)   # what libraries print is no answer
    prepared = {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = _answer(tasks, prepared, request)
        except Exception as error:
            traceback.print_exc()
            answer = {'error': f'{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}'}
        answers.write(json.dumps(answer) + '\n')
        answers.flush()


def _answer(tasks, prepared, request):
    if request['do'] == 'versions':
        return tasks['versions']()
    if request['do'] == 'forget':
        prepared.clear()
        return {}
    key = json.dumps([request['task'], request['arguments']])
    if request['do'] == 'prepare':
        prepared[key] = tasks[request['task']](**request['arguments'])
    began = perf_counter()
    told = prepared[key]()
    seconds = perf_counter() - began
    return {'seconds': seconds, **(told if isinstance(told, dict) else {'amount': told})}
