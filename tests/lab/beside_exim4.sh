#!/usr/bin/env bash
# Do `make run` and `make test` leave a machine as it was, with Debian's mail server on it?
#
#     python scripts/fresh.py bookworm tests/lab/beside_exim4.sh
#
# Run it in a clone, as root, on a Debian that may be thrown away, never elsewhere: it installs Exim, and changes what is
# installed. Exit status: 0 all is as it was, 1 it is not.
set -euo pipefail
cd "$(dirname "$0")/../.."
export DEBIAN_FRONTEND=noninteractive SMTP_HORIZON_PURE=1  # compiling takes long, and has nothing to do with it

folder=$(mktemp -d)
apt-get update -qq
apt-get upgrade -y -qq > "$folder/upgrade.log" 2>&1  # else the newest headers of a library would want a newer library
apt-get install -y -qq --no-install-recommends exim4-daemon-light > "$folder/exim4.log" 2>&1
exim4 -bdf -oX 127.0.0.1.2525 &
exim=$!
trap 'kill $exim; rm -rf "$folder"' EXIT

# Each line of it has to be there afterwards, too.
what_is_there() {
    dpkg-query --show --showformat='package ${Package} ${Version} ${db:Status-Status}\n'
    find /etc/exim4 /etc/mailname /etc/aliases -type f -exec sha256sum {} + 2> /dev/null || true
    sed 's/^/user /' /etc/passwd
    sed 's/^/group /' /etc/group
    readlink -f /usr/sbin/sendmail /usr/sbin/exim4
    debconf-show exim4-config
}

# To these no line may come, either.
services() {
    find /etc/init.d /etc/rc?.d /etc/systemd /etc/cron* /lib/systemd/system \
        \( -type f -o -type l \) -printf '%p %l\n' 2> /dev/null || true
    [[ ! -e /usr/sbin/policy-rc.d ]] || echo /usr/sbin/policy-rc.d
}

what_is_there | sort > "$folder/before"
services | sort > "$folder/services-before"

echo "--- make run"
set -m  # its own process group, for what a Ctrl-C does
make run > "$folder/run.log" 2>&1 &
running=$!
set +m
until grep -q 'beyond the reach of a stream watcher: [0-9]' "$folder/run.log"; do
    kill -0 $running 2> /dev/null || { tail -n 20 "$folder/run.log"; echo "make run has ended"; exit 1; }
    sleep 1
done
kill -INT -- -$running
wait $running || true
grep 'How much of this mail' "$folder/run.log"

echo "--- make lab, as make test does it"
make lab

what_is_there | sort > "$folder/after"
services | sort > "$folder/services-after"
status=0
if comm -23 "$folder/before" "$folder/after" | grep .; then
    echo "^ was there, and is no more"
    status=1
fi
if diff "$folder/services-before" "$folder/services-after"; then :; else
    echo "^ services have changed"
    status=1
fi
kill -0 $exim || { echo "Exim no longer runs"; status=1; }
echo "added: $(comm -13 "$folder/before" "$folder/after" | grep -c ^package) packages," \
    "$(comm -13 "$folder/before" "$folder/after" | grep ^user | cut -d: -f1 | paste -sd ' ')"
exit $status
