"""The private environment of this checkout: made on first use, then only looked at.

Plain Python without packages, and old syntax on purpose, so that an old Python can say what it lacks.
"""

import hashlib
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PLACE = os.path.join(ROOT, ".venv")
PLACE_OF_OPTIONAL = os.path.join(ROOT, ".venv-optional")  # of the tests of optional parts
PLACE_OF_DOCS = os.path.join(ROOT, ".venv-docs")  # of the book
PLACE_OF_RELEASE = os.path.join(ROOT, ".venv-release")  # with the tools that build what is released
ADDED = "extras"  # the file in an environment that lists the optional parts that its user added
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


def project():
    """What pyproject.toml says of the project."""
    import tomllib  # here, since it came with Python 3.11

    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        return tomllib.load(file)["project"]


def wanted_packages(extras):
    """The dependencies that pyproject.toml names, those of the extras included."""
    found = project()
    packages = list(found["dependencies"])
    for extra in extras:
        packages += [each for each in found["optional-dependencies"][extra] if each not in packages]
    return packages


def added_extras(place):
    """The optional parts that the user has added to an environment, of those that there still are."""
    try:
        with open(os.path.join(place, ADDED)) as file:
            names = file.read().split()
    except OSError:
        return []
    known = project()["optional-dependencies"]
    return [name for name in names if name in known]


def keep_added(place, extras):
    with open(os.path.join(place, ADDED), "w") as file:
        file.write("".join(extra + "\n" for extra in extras))


def prepare(extras=(), packages=(), place=None):
    """The Python of the environment, with the packages that are needed; says what it does where it does anything.

    The optional parts that were added stay, also where the environment is made anew or their versions change.
    """
    python = find_python()
    if python != sys.executable:
        sys.stdout.flush()
        os.execv(python, [python] + sys.argv)
    place = place or PLACE
    added = added_extras(place)
    wanted = wanted_packages(list(extras) + [extra for extra in added if extra not in extras]) + list(packages)
    inside = os.path.join(place, "Scripts" if os.name == "nt" else "bin", "python")
    recipe = "\n".join(wanted)
    stamp = os.path.join(place, "ready-" + hashlib.sha256(recipe.encode()).hexdigest()[:16])
    if os.path.exists(stamp) and os.path.exists(inside):
        return inside
    try:
        import ensurepip  # noqa: F401  (Debian keeps it in a package of its own)
        import venv
    except ImportError:
        fail("this Python has no venv module; install it (Debian, Ubuntu: apt install python3-venv) and run this again")
    if not os.path.exists(inside):  # nor if its Python was removed: it is a link to that
        sys.stderr.write("refllm: first use: making a private environment in %s\n" % os.path.relpath(place))
        try:
            venv.create(place, clear=True, with_pip=True, symlinks=os.name != "nt")
            keep_added(place, added)
        except (OSError, subprocess.CalledProcessError) as error:
            fail("cannot make the environment in %s: %s" % (place, error))
    sys.stderr.write("refllm: installing %s\n" % ", ".join(wanted))
    sys.stderr.flush()
    install_packages(inside, wanted)
    with open(stamp, "w") as file:
        file.write(recipe + "\n")
    return inside


def install_packages(python, packages):
    """Installs them with pip. Where that fails one line says why."""
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"] + packages
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = process.communicate()[0].decode("utf-8", "replace")
    if process.returncode != 0:
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR:")] or lines or ["pip gave no reason"]
        fail(
            "the packages could not be installed, for which the network is needed once (%s); "
            "check it and run this again" % errors[-1]
        )


def keep_compiled(place):
    """Keeps compiled modules in the environment where Python is told to write none beside the sources: without them
    every start compiles the whole program anew."""
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        os.environ.setdefault("PYTHONPYCACHEPREFIX", os.path.join(place, "compiled"))


def run(arguments, extras=(), packages=(), place=None):
    """Replaces this process by the environment's Python with `arguments`; the checkout is what it imports."""
    keep_compiled(place or PLACE)  # first, so that pip compiles what it installs to where it is looked for
    python = prepare(extras, packages, place)
    os.environ["PYTHONPATH"] = os.pathsep.join([ROOT] + [p for p in [os.environ.get("PYTHONPATH")] if p])
    sys.stdout.flush()
    if os.name == "nt":  # execv does not wait there
        sys.exit(subprocess.call([python] + arguments))
    os.execv(python, [python] + arguments)


def install(names, typed):
    """Adds optional parts to the environment, which keeps them; `typed` is the script as the user called it."""
    python = find_python()
    if python != sys.executable:
        sys.stdout.flush()
        os.execv(python, [python] + sys.argv)
    known = project()["optional-dependencies"]
    if "-h" in names or "--help" in names:
        lines = ["  %-12s %s" % (name, ", ".join(packages)) for name, packages in sorted(known.items())]
        print("usage: %s install PART ...\n\nAdds optional parts to the environment of this checkout:\n" % typed)
        print("\n".join(lines))
        return
    strange = [name for name in names if name not in known]
    if strange or not names:
        what = "there is no optional part %s" % strange[0] if strange else "say which optional part"
        fail("%s; there are %s (example: %s install plot)" % (what, ", ".join(sorted(known)), typed))
    before = added_extras(PLACE)
    together = before + [name for name in dict.fromkeys(names) if name not in before]
    prepare(together)
    keep_added(PLACE, together)
    print("installed: %s" % ", ".join(names))
