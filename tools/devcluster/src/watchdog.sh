# devcluster watchdog: runs one server, and ends it when the owner's end of stdin closes, however
# the owner ended.
# Arguments: pid file, log file, the server and its arguments.
# Stdout is the janitor's pipe: open for as long as the server may write into the data folder.

pid_file=$1
log_file=$2
shift 2

# A signal to a whole process group must not end the watchdog before its server.
trap '' INT HUP QUIT
server=
# The data is removed, so an API server that waits for its watches to end gets 3 seconds only.
stop() {
  trap '' TERM
  [ -n "$server" ] || exit 0
  kill -TERM "$server" 2>/dev/null
  tenths=0
  while kill -0 "$server" 2>/dev/null && [ "$tenths" -lt 30 ]; do
    sleep 0.1 2>/dev/null || sleep 1 # POSIX promises whole seconds only
    tenths=$((tenths + 1))
  done
  kill -KILL "$server" 2>/dev/null
  wait "$server" 2>/dev/null
  exit 0
}
trap stop TERM

exec 3<&0 </dev/null
"$@" 3<&- >>"$log_file" 2>&1 &
server=$!
echo "$server" >"$pid_file"

# The lifeline: nothing is ever written, so read returns when the owner has ended. Its signal ends
# the wait of the main shell.
(
  read -r _ <&3
  kill -TERM $$
) >/dev/null 2>&1 &
lifeline=$!
exec 3<&-

wait "$server"
status=$?
kill "$lifeline" 2>/dev/null
exit "$status"
