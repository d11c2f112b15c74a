set :application, "bench"
set :repo_url, "none"
set :log_level, :info
set :current_revision, ENV.fetch("RELEASE")

# All hosts are one machine here, so each has a directory of its own; Capistrano knows one for all.
module Capistrano::DSL::Paths
  def deploy_to
    host = SSHKit::Backend.current&.host
    File.join(ENV.fetch("FLEET"), host ? host.hostname : "h0", "srv", ENV.fetch("NAME"))
  end

  def release_path
    stamp = fetch(:release_timestamp)
    stamp ? releases_path.join(stamp) : current_path
  end
end
