#!/bin/sh
# A logger process (binary:// stdio): appends stdout and stderr of a container to the file "$1".
cat <&3 >>"$1" 5>&- &
cat <&4 >>"$1" 5>&- &
exec 3<&- 4<&- 5>&-
wait
