#!/usr/bin/env bash
# Packs what the machine with the GPU lacks into .gpu/pack.tar.xz, for Python 3.12 on x86-64 Linux: equivbench's and its tests'
# own needs, and the libraries that the kernels are held against; and the commit into .gpu/_build.py. Run it where pip reaches a
# registry, after the last commit; git ignores .gpu/.
set -euo pipefail
cd "$(dirname "$0")/.."
most=$((50 * 1000 * 1000))  # bytes of the archive

# Torch, e3nn, torch-geometric, numpy, scipy, typer, rich, jinja2, safetensors, jaxtyping, psutil, nvidia-ml-py, pytest and
# hypothesis are there.
own=(msgspec platformdirs filelock beartype jsonschema jsonschema-specifications referencing rpds-py attrs typing_extensions)
libraries=(cuequivariance cuequivariance-torch cuequivariance-ops-cu13 cuequivariance-ops-torch-cu13)
sources=(openequivariance==0.7.0)  # a source archive: its C++ is compiled where it runs (OEQ_JIT_EXTENSION=1)

# Records name the commit, which a copy of the files without git does not tell.
mkdir -p .gpu
named() { if [ -z "$(git status --porcelain -- equivbench pyproject.toml setup.py)" ]; then printf '"%s"' "$(git rev-parse "$1")"; else printf None; fi; }
printf '"""The commit that this was carried from."""\n\nCOMMIT = %s\nTREE = %s\n' "$(named HEAD)" "$(named HEAD:equivbench)" >.gpu/_build.py
if [ -e .gpu/pack.tar.xz ] && [ "${1:-}" != --fresh ]; then echo ".gpu/pack.tar.xz is there already; --fresh makes it anew"; exit 0; fi

rm -rf .gpu/site .gpu/sources .gpu/backend
mkdir -p .gpu/site .gpu/sources
platforms=()
for version in manylinux_2_28 manylinux_2_27 manylinux_2_24 manylinux_2_17 manylinux2014 manylinux1; do
  platforms+=(--platform "${version}_x86_64")
done
python -m pip install -q --disable-pip-version-check --no-deps --no-compile --only-binary=:all: --python-version 3.12 \
  --implementation cp "${platforms[@]}" --target .gpu/site "${own[@]}" "${libraries[@]}"

# pip asks a source archive's build backend for its name; that is in PKG-INFO, and nothing is built here.
mkdir -p .gpu/backend/scikit_build_core
: >.gpu/backend/scikit_build_core/__init__.py
cat >.gpu/backend/scikit_build_core/build.py <<'END'
import pathlib, re, shutil


def prepare_metadata_for_build_wheel(folder, config_settings=None):
    text = pathlib.Path("PKG-INFO").read_text(encoding="utf-8")
    name, version = (re.search(f"^{key}: (.+)$", text, re.M)[1] for key in ("Name", "Version"))
    made = pathlib.Path(folder, f"{name}-{version}.dist-info")
    made.mkdir()
    shutil.copy("PKG-INFO", made / "METADATA")
    return made.name


def build_wheel(*arguments):
    raise NotImplementedError
END
PYTHONPATH="$PWD/.gpu/backend" python -m pip download -q --disable-pip-version-check --no-deps --no-binary=:all: --no-build-isolation \
  -d .gpu/sources "${sources[@]}"
for archive in .gpu/sources/*.tar.gz; do
  tar -C .gpu/sources -xzf "$archive"
  folder=${archive%.tar.gz}
  name=$(basename "$folder")
  cp -r "$folder/${name%%-*}" .gpu/site/
  mkdir -p ".gpu/site/$name.dist-info"
  cp "$folder/PKG-INFO" ".gpu/site/$name.dist-info/METADATA"
done

find .gpu/site -name '__pycache__' -type d -prune -exec rm -rf {} +
rm -rf .gpu/site/bin .gpu/site/include .gpu/site/lib64 .gpu/site/share  # of tests of the libraries' C++
tar -C .gpu/site -cf - . | xz -T1 -6 >.gpu/pack.tar.xz
size=$(stat -c %s .gpu/pack.tar.xz)
echo "$((size / 1000)) kB in .gpu/pack.tar.xz: $(ls .gpu/site | grep -v dist-info | tr '\n' ' ')"
if ((size > most)); then echo "more than $((most / 1000)) kB: too large to be carried" >&2; exit 1; fi
rm -rf .gpu/site .gpu/sources .gpu/backend
