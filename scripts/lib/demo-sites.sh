# shellcheck shell=bash
# The demonstration's files: the agent's configuration, its sites, and nginx's. Sourced by scripts/demo, whose variables
# these are.
# shellcheck disable=SC2154

write_agent_config() {
    install -d -m 755 "$demo/vhosts.d" "$demo/www" "$demo/sites"
    # Everything of its own, so that an installed agent is not disturbed.
    cat >"$demo/agent.toml" <<CONFIG
run_dir = "$run_dir"
state_dir = "$state_dir"
vhosts_dir = "$demo/vhosts.d"
cgroup_parent = "fastcontainer-demo"
shim = "$demo/bin/fastcontainer-shim"
subnet = "10.89.0.0/16"
nft_table = "fastcontainer_demo"
interface_prefix = "fd"

[limits]
memory = "256M"
pids = 64

[[alias]]
pattern = "*.sites.localhost"
documents = "$demo/sites/%h"
definition = "directory.toml"
CONFIG
    cat >"$demo/directory.toml" <<DEFINITION
owner = "demo-bolt"
command = ["busybox", "httpd", "-f", "-p", "8080", "-h", "/site"]
listen = "tcp:8080"
DEFINITION
}

own() { chown -R --no-dereference "$1:$1" "$2"; } # USER DIRECTORY

make_static_site() { # HOST USER TEXT
    local dir=$demo/sites/$1
    rm -rf --one-file-system "$dir" "$dir.new"
    mkdir "$dir.new"
    printf '<h1>%s</h1>\n' "$3" >"$dir.new/index.html"
    own "$2" "$dir.new"
    # At once, and complete.
    mv -T "$dir.new" "$dir"
}

static_site() { # NAME USER IDLE
    mkdir -p "$demo/www/$1"
    printf '<h1>A static page of %s</h1>\n' "$2" >"$demo/www/$1/index.html"
    own "$2" "$demo/www/$1"
    cat >"$demo/vhosts.d/$1.toml" <<DEFINITION
name = "$1"
owner = "$2"
documents = "$demo/www/$1"
command = ["busybox", "httpd", "-f", "-p", "8080", "-h", "/site"]
listen = "tcp:8080"

[idle]
timeout = "$3"
DEFINITION
}

php_site() { # NAME USER
    local dir=$demo/www/$1 module
    module=$(compgen -G '/usr/lib/apache2/modules/libphp*.so' | sort -V | tail -n 1)
    mkdir -p "$dir/public"
    # An ordinary Apache: nothing in here knows of containers but the paths.
    cat >"$dir/httpd.conf" <<CONFIG
ServerName $1
Listen 8080
DefaultRuntimeDir /tmp
PidFile /tmp/httpd.pid
ErrorLog /dev/stderr
LoadModule mpm_prefork_module /usr/lib/apache2/modules/mod_mpm_prefork.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
LoadModule mime_module /usr/lib/apache2/modules/mod_mime.so
LoadModule php_module $module
TypesConfig /etc/mime.types
StartServers 2
MaxRequestWorkers 16
DocumentRoot /site/public
DirectoryIndex index.php
<FilesMatch \\.php\$>
    SetHandler application/x-httpd-php
</FilesMatch>
CONFIG
    cat >"$dir/public/index.php" <<'PHP'
Hello from PHP <?= PHP_VERSION ?> in <?= $_SERVER['SERVER_NAME'] ?>, run by uid <?= posix_getuid() ?>; you are <?= $_SERVER['HTTP_X_FORWARDED_FOR'] ?? 'the host' ?>.
PHP
    cat >"$dir/public/speed.php" <<'PHP'
<?php
// How much work gets done in a second of real time, and how much CPU time that took.
function used(): float {
    $usage = getrusage();
    return $usage['ru_utime.tv_sec'] + $usage['ru_stime.tv_sec'] + ($usage['ru_utime.tv_usec'] + $usage['ru_stime.tv_usec']) / 1e6;
}
[$start, $used] = [microtime(true), used()];
for ($loops = 0; microtime(true) < $start + 1; $loops++) {
    for ($i = 0; $i < 1000; $i++);
}
echo json_encode(['loops' => $loops, 'cpu' => round(100 * (used() - $used) / (microtime(true) - $start))]);
PHP
    cat >"$dir/public/inside.php" <<PHP
<?php
\$user = posix_getpwuid(posix_getuid());
echo "I am {\$user['name']} (uid ", posix_getuid(), "), my processes are:\n", shell_exec('ps -eo pid,user,args');
echo "My files: /site: ", implode(' ', array_diff(scandir('/site'), ['.', '..'])), "; /home: ", @scandir('/home') ? 'there' : 'not there', "\n";
\$try = function (string \$what, string \$address) {
    \$socket = @stream_socket_client(\$address, \$errno, \$error, 2);
    echo "\$what (\$address): ", \$socket ? 'REACHED' : "not reachable (\$error)", "\n";
};
\$try("My own server", 'tcp://127.0.0.1:8080');
if (preg_match('/^[0-9.]+:[0-9]+\$/', \$_GET['neighbour'] ?? '')) {
    \$try("acme's PHP site", 'tcp://' . \$_GET['neighbour']);
}
\$try("The agent's socket", 'unix://$run_dir/agent.sock');
PHP
    own "$2" "$dir"
    cat >"$demo/vhosts.d/$1.toml" <<DEFINITION
name = "$1"
owner = "$2"
documents = "$dir"
command = ["apache2", "-D", "FOREGROUND", "-f", "/site/httpd.conf"]
listen = "tcp:8080"

[idle]
timeout = "5m"

[stop]
signal = "WINCH"
DEFINITION
}

write_sites() {
    php_site php.acme.localhost demo-acme
    php_site php.bolt.localhost demo-bolt
    static_site static.acme.localhost demo-acme 60s
    static_site static.bolt.localhost demo-bolt 2s
}

# The shipped files; only the socket and the place to listen are this demonstration's.
write_nginx_config() {
    local dir=$demo/nginx kind
    install -d -m 755 "$dir" "$dir/tmp"
    cp -rT "$root/packaging/nginx/snippets" "$dir/snippets"
    install -d -m 755 "$dir/conf.d" "$dir/sites-available"
    sed "s|/run/fastcontainer/agent.sock|$socket|" "$root/packaging/nginx/conf.d/fastcontainer.conf" >"$dir/conf.d/fastcontainer.conf"
    sed -e "s|listen 80 |listen 127.0.0.1:$port |" -e '/listen \[::\]/d' \
        "$root/packaging/nginx/sites-available/fastcontainer" >"$dir/sites-available/fastcontainer"
    {
        printf 'user www-data;\npid %s/pid;\nerror_log %s/error.log;\nevents { worker_connections 1024; }\n' "$dir" "$dir"
        printf 'http {\n    access_log off;\n'
        for kind in client_body proxy fastcgi uwsgi scgi; do
            printf '    %s_temp_path %s/tmp/%s;\n' "$kind" "$dir" "$kind"
        done
        printf '    include conf.d/*.conf;\n    include sites-available/*;\n}\n'
    } >"$dir/nginx.conf"
}
