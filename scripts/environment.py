"""The private environment of this checkout: made on first use, then only looked at.

Plain Python without packages, and old syntax on purpose, so that an old Python can say what it lacks.
"""

import hashlib
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PLACE = os.path.join(ROOT, ".venv")
NEEDED = (3, 11)


def fail(line):
    sys.stderr.write("refllm: %s\n" % line)
    sys.exit(2)


def find_python():
    """The running Python if it is new enough, else the newest newer one that can be found; else one clear line."""
    if sys.version_info >= NEEDED:
        return sys.executable
    for minor in range(20, NEEDED[1] - 1, -1):
        for folder in os.environ.get("PATH", "").split(os.pathsep):
            candidate = os.path.join(folder, "python3.%d" % minor)
            works = "import sys, venv; sys.exit(sys.version_info < (3, 11))"
            if not os.access(candidate, os.X_OK):
                continue
            trial = subprocess.Popen([candidate, "-c", works], stderr=subprocess.PIPE)
            trial.communicate()
            if trial.returncode == 0:
                return candidate
    return fail(
        "Python %d.%d or newer is needed, this is %s; install one and run this again"
        % (NEEDED[0], NEEDED[1], sys.version.split()[0])
    )


def wanted_packages(extras):
    """The dependencies that pyproject.toml names, those of the extras included."""
    import tomllib  # here, since it came with Python 3.11

    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        project = tomllib.load(file)["project"]
    packages = list(project["dependencies"])
    for extra in extras:
        packages += project["optional-dependencies"][extra]
    return packages


def prepare(extras=()):
    """The Python of the environment, with the packages that are needed; says what it does where it does anything."""
    python = find_python()
    if python != sys.executable:
        sys.stdout.flush()
        os.execv(python, [python] + sys.argv)
    packages = wanted_packages(extras)
    inside = os.path.join(PLACE, "Scripts" if os.name == "nt" else "bin", "python")
    recipe = "\n".join(packages)
    stamp = os.path.join(PLACE, "ready-" + hashlib.sha256(recipe.encode()).hexdigest()[:16])
    if os.path.exists(stamp) and os.path.exists(inside):
        return inside
    try:
        import ensurepip  # noqa: F401  (Debian keeps it in a package of its own)
        import venv
    except ImportError:
        fail("this Python has no venv module; install it (Debian, Ubuntu: apt install python3-venv) and run this again")
    if not os.path.exists(inside):  # nor if its Python was removed: it is a link to that
        sys.stderr.write("refllm: first use: making a private environment in %s\n" % os.path.relpath(PLACE))
        try:
            venv.create(PLACE, clear=True, with_pip=True, symlinks=os.name != "nt")
        except (OSError, subprocess.CalledProcessError) as error:
            fail("cannot make the environment in %s: %s" % (PLACE, error))
    sys.stderr.write("refllm: installing %s\n" % ", ".join(packages))
    sys.stderr.flush()
    command = [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"] + packages
    if subprocess.call(command, stdout=sys.stderr.fileno()) != 0:
        fail("the packages could not be installed (see above); check the network and run this again")
    with open(stamp, "w") as file:
        file.write(recipe + "\n")
    return inside


def run(arguments, extras=()):
    """Replaces this process by the environment's Python with `arguments`; the checkout is what it imports."""
    python = prepare(extras)
    os.environ["PYTHONPATH"] = os.pathsep.join([ROOT] + [p for p in [os.environ.get("PYTHONPATH")] if p])
    sys.stdout.flush()
    if os.name == "nt":  # execv does not wait there
        sys.exit(subprocess.call([python] + arguments))
    os.execv(python, [python] + arguments)
