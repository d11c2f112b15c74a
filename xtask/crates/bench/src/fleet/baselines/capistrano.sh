# Its own deploy, with all hooks; see deploy.rb.
set -eu
exec cap bench deploy
