#!/usr/bin/env bash
# Makes this checkout ready to work: Debian packages, .venv from the lock file, Prefect's embedded database.
# Run by `make setup`; safe to run again at any time, also after an interruption. Nothing is touched when
# nothing is missing: the stamp is written last and names everything that the result was made from.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

say() { printf 'setup: %s\n' "$*"; }
die() { { printf 'setup: %s\n' "$1"; shift; [ $# = 0 ] || printf '%s\n' "$@"; } >&2; exit 1; }

# package | what shows it on a system without dpkg (a command or a file; `-` where the kernel row speaks) | why
packages='
qemu-system-x86|qemu-system-x86_64|runs the guests
qemu-utils|qemu-img|creates, inspects and checks disk images
libvirt-daemon-system|libvirtd|the daemon whose domains are backed up
libvirt-clients|virsh|the commands of docs/restore-by-hand.md
libvirt-dev|/usr/include/libvirt/libvirt.h|builds the Python binding of libvirt
libssl-dev|/usr/include/openssl/ssl.h|builds borg
libacl1-dev|/usr/include/sys/acl.h|builds borg
liblz4-dev|/usr/include/lz4.h|builds borg
libzstd-dev|/usr/include/zstd.h|builds borg
libxxhash-dev|/usr/include/xxhash.h|builds borg
gcc|gcc|builds borg and the binding of libvirt
pkg-config|pkg-config|builds borg and the binding of libvirt
python3-dev|-|builds borg and the binding of libvirt
python3-venv|-|makes .venv
make|make|runs the steps
git|git|tells which version is tested
util-linux|losetup|block devices on loop
kmod|modprobe|kernel modules of the test guests
e2fsprogs|mkfs.ext4|file systems of the test guests
busybox-static|busybox|user land of the test guests
cpio|cpio|initial RAM disks of the test guests
zstd|zstd|initial RAM disks of the test guests
ovmf|-|UEFI firmware of the test guests
swtpm|swtpm|TPM of the test guests
swtpm-tools|swtpm_setup|TPM of the test guests
gnutls-bin|certtool|certificates of the TPM and of that server
nbdkit|nbdkit|small and failing disks for the tests
libnbd-bin|nbdinfo|network disks for the tests
fuse3|fusermount3|mounts archives
libfuse3-dev|/usr/include/fuse3/fuse.h|builds what borg mounts archives with
libguestfs-tools|guestfish|reads single files of a guest
libguestfs-xfs|-|reads XFS of a guest
ntfs-3g|ntfs-3g|reads NTFS of a guest
openssh-client|ssh-keygen|makes SSH keys, and prints public ones
postgresql-client|pg_restore|proves dumps of PostgreSQL whole
openssh-server|sshd|the dump host of the tests
postgresql|/usr/lib/postgresql/*/bin/postgres|databases to dump in the tests
mariadb-server|mariadbd|databases to dump in the tests
redis-server|redis-server|databases to dump in the tests
sqlite3|sqlite3|databases to dump in the tests
dropbear-bin|dropbear|the SSH server inside a test guest
nginx|nginx|TLS in front of the Prefect server of the tests
systemd|systemd-analyze|judges the units in the tests
dnsmasq-base|dnsmasq|gives that guest its address
fonts-dejavu-core|/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf|letters for that browser
shellcheck|shellcheck|checks the shell scripts in make lint
'

is_ubuntu() {
  local ID='' ID_LIKE=''
  # shellcheck source=/dev/null
  [ ! -r /etc/os-release ] || . /etc/os-release
  case " $ID $ID_LIKE " in *' ubuntu '*) return 0 ;; *) return 1 ;; esac
}

kernel_package() {  # a small kernel for the test guests goes by another name in each distribution
  if is_ubuntu; then echo linux-image-virtual; else echo linux-image-cloud-amd64; fi
}
packages="${packages}$(kernel_package)|/boot/vmlinuz*|kernel of the test guests"

browser_row() {  # any Chromium will do; Ubuntu's package is a front to its snap
  local name
  for name in chromium-headless-shell chromium chromium-browser google-chrome; do
    command -v "$name" >/dev/null && return
  done
  if is_ubuntu; then name=chromium-browser; else name=chromium-headless-shell; fi
  echo "$name|$name|looks at the dashboard in the tests"
}
packages="$packages
$(browser_row)"

missing_by_dpkg() {  # prints the rows of packages that dpkg does not call installed
  local installed
  installed=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' 2>/dev/null | sed -n 's/^installed //p')
  while IFS='|' read -r package _ why; do
    [ -n "$package" ] || continue
    case $'\n'"$installed"$'\n' in *$'\n'"$package"$'\n'*) ;; *) printf '%s|%s\n' "$package" "$why" ;; esac
  done <<<"$packages"
}

missing_by_probe() {  # the same for a system without dpkg
  while IFS='|' read -r package probe why; do
    case $probe in
      '' | -) continue ;;
      /*) compgen -G "$probe" >/dev/null && continue ;;
      *) PATH=$PATH:/usr/sbin:/sbin:/usr/libexec command -v "$probe" >/dev/null && continue ;;
    esac
    printf '%s|%s\n' "$package" "$why"
  done <<<"$packages"
}

listed() { sed 's/^/  /; s/|/ (/; s/$/)/'; }

export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
apt=(apt-get -y -qq -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 -o Dpkg::Options::=--force-confold
  -o Dpkg::Use-Pty=0)

refresh_lists_if_none() {  # the test guests unpack qemu-guest-agent, which a hypervisor should not have installed
  compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null || [ "$(id -u)" != 0 ] && return
  say "fetching the package lists: there are none"
  "${apt[@]}" update || say "apt-get update failed; the test guests need it once"
}

install_packages() {
  local missing names
  if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    missing=$(missing_by_probe)
    [ -z "$missing" ] && return
    die "this system has no apt-get, so install what these Debian packages hold, then run this again:" \
      "$(listed <<<"$missing")"
  fi
  missing=$(missing_by_dpkg)
  if [ -z "$missing" ]; then
    refresh_lists_if_none
    return
  fi
  names=$(cut -d'|' -f1 <<<"$missing" | tr '\n' ' ')
  [ "$(id -u)" = 0 ] || die "these Debian packages are missing and only root can install them:" \
    "$(listed <<<"$missing")" "run as root: apt-get install --no-install-recommends $names"
  say "installing these Debian packages:"
  listed <<<"$missing"
  [ -z "$(dpkg --audit)" ] || dpkg --configure -a --force-confold  # an interrupted run left something half done
  "${apt[@]}" update || say "apt-get update failed; going on with the lists that are there"
  # shellcheck disable=SC2086 # names is a list of words
  "${apt[@]}" install --no-install-recommends $names 9<&- ||
    die "apt-get could not install: $names" "look at its messages above; 'make setup' goes on where it stopped"
}

find_python() {  # prints the first interpreter that is new enough and can make and build into a venv
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3 /usr/bin/python3 python3.14 python3.13 python3.12 python3.11; do
    "$candidate" - 2>/dev/null <<'PY' && return
import ensurepip, pathlib, sys, sysconfig, venv
if sys.version_info < (3, 11) or not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists():
    sys.exit(1)
print(sys.executable)
PY
  done
  die "no usable Python: vmborg needs 3.11 or newer with its venv module and its headers" \
    "found: $(python3 --version 2>&1 || true)" \
    "Debian 12 and Ubuntu 24.04 have it as python3, python3-venv, python3-dev; or name one: make setup PYTHON=..."
}

digest() { { printf '%s\n' "$PWD"; cat "$@" 2>/dev/null || true; } | sha256sum; }

sound_venv() {  # whether .venv was made here, its interpreter is still there, and no pip was cut short in it
  grep -qsF "$PWD/.venv" .venv/bin/pip && .venv/bin/python -m pip --version >/dev/null 2>&1 &&
    [ "$(cat "$1" 2>/dev/null)" != unfinished ]
}

make_venv() {
  local stamp=.venv/.vmborg-packages want python
  want=$(digest pyproject.toml requirements-dev.lock deployments/setup.sh)
  if [ "$(cat $stamp 2>/dev/null)" = "$want" ] && .venv/bin/python -c '' 2>/dev/null; then
    return
  fi
  if ! sound_venv $stamp; then
    python=$(find_python)
    say "making .venv with $python"
    "$python" -m venv --clear .venv
  fi
  say "installing the locked Python packages into .venv (minutes the first time: borg and libvirt's binding are built)"
  echo unfinished >$stamp
  local pip=(.venv/bin/python -m pip --disable-pip-version-check --no-input -q)
  "${pip[@]}" install --no-deps --require-hashes -r requirements-dev.lock
  "${pip[@]}" install --no-deps --no-build-isolation -e .
  "${pip[@]}" check
  printf '%s\n' "$want" >$stamp
  say "done: .venv/bin/vmborg"
}

prepare_prefect() {
  local stamp=.venv/.vmborg-prepared want
  [ -f deployments/prepare.py ] || return 0
  want=$(digest requirements-dev.lock deployments/prepare.py deployments/embedded.py)
  [ "$(cat $stamp 2>/dev/null)" != "$want" ] || return 0
  say "preparing Prefect's embedded database (its migrations take a while)"
  .venv/bin/python -m deployments.prepare 9<&-
  printf '%s\n' "$want" >$stamp
}

# One setup of this checkout at a time. What could outlive us (a service that apt starts) must not hold the lock.
exec 9<.
command -v flock >/dev/null && flock 9
install_packages
make_venv
prepare_prefect
