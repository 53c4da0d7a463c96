#!/usr/bin/env bash
# Finds out, on a real account, what nobody published: what adding a present slave and removing an absent one answer, what a wrong session does, and
# whether a call that is rejected for one bad id did nothing for its good one. It makes at most ten calls and leaves the instance out of the session. Never run by CI.
#
#   TENCENTCLOUD_SECRET_ID=… TENCENTCLOUD_SECRET_KEY=… SESSION_ID=… INSTANCE_ID=… make smoke
set -euo pipefail

for name in TENCENTCLOUD_SECRET_ID TENCENTCLOUD_SECRET_KEY SESSION_ID INSTANCE_ID; do
  if [[ -z "${!name:-}" ]]; then
    echo "smoke: $name is not set. It takes a key, a multi-stream session and an instance that nobody uses:" >&2
    echo "  TENCENTCLOUD_SECRET_ID=… TENCENTCLOUD_SECRET_KEY=… SESSION_ID=… INSTANCE_ID=… make smoke" >&2
    exit 2
  fi
done
operator=${OPERATOR:-streamsession-operator}

# The call by hand; prints the outcome of the one id and the code of the call, whatever they are.
call() {
  local answer
  answer=$("$operator" switch --session-id "$1" "$2" "$3" --yes -o json 2>/dev/null) || true
  sed -n 's/^ *"outcome": "\(.*\)".*/\1/p; s/^ *"code": "\(..*\)".*/(\1)/p' <<<"$answer" | sort -r | tr '\n' ' '
}

say() { printf '%-44s %s\n' "$1" "$2"; }

first=$(call "$SESSION_ID" --attach "$INSTANCE_ID")
say "attach" "$first"
if [[ $first != Succeeded* ]]; then
  echo "smoke: the first attach did not succeed; see: $operator switch --session-id $SESSION_ID --attach $INSTANCE_ID" >&2
  exit 1
fi
trap '"$operator" switch --session-id "$SESSION_ID" --detach "$INSTANCE_ID" --yes >/dev/null 2>&1 || true' EXIT
say "attach again (add-present)" "$(call "$SESSION_ID" --attach "$INSTANCE_ID")"
say "detach" "$(call "$SESSION_ID" --detach "$INSTANCE_ID")"
say "detach again (remove-absent)" "$(call "$SESSION_ID" --detach "$INSTANCE_ID")"
say "attach an instance that does not exist" "$(call "$SESSION_ID" --attach "no-such-instance")"
say "attach a good and a bad one in one call" "$(call "$SESSION_ID" --attach "$INSTANCE_ID" --attach "no-such-instance")"
echo "  If that was an error of the whole call, the next line tells whether it did something for the good one:"
echo "  it did nothing if the line says what \"detach again\" said above. (If \"detach again\" succeeded, nobody can tell.)"
say "detach the good one" "$(call "$SESSION_ID" --detach "$INSTANCE_ID")"
say "attach to a session that does not exist" "$(call "1" --attach "$INSTANCE_ID")"
