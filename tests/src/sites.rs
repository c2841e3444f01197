//! Sites that tests run.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;

use crate::{Host, OWNER};

/// Apache's modules that a PHP site needs.
const MODULES: [(&str, &str); 6] = [
    ("mpm_prefork", "mod_mpm_prefork.so"),
    ("authz_core", "mod_authz_core.so"),
    ("dir", "mod_dir.so"),
    ("mime", "mod_mime.so"),
    ("php", "libphp8.2.so"),
    ("env", "mod_env.so"),
];

/// A definition's rest for Apache with what [`apache_files`] writes.
pub const APACHE: &str = r#"
command = ["apache2", "-D", "FOREGROUND", "-f", "/site/httpd.conf"]
listen = "tcp:8080"
"#;

/// Says who serves it.
const PAGE: &str = "<?php echo 'php ', PHP_SAPI, ' as ', posix_getuid(), \"\\n\";\n";

/// Defines a site of Apache with PHP; `rest` is TOML behind `command` and `listen`.
pub fn apache(host: &Host, name: &str, rest: &str) {
    apache_files(&host.site(name, &format!("{APACHE}{rest}")));
}

/// The documents of a site of Apache with PHP.
pub fn apache_files(documents: &Path) {
    let mut config = String::from(
        "ServerRoot /tmp\nServerName localhost\nPidFile /tmp/apache.pid\nListen 8080\nTypesConfig /etc/mime.types\n",
    );
    for (module, file) in MODULES {
        config += &format!("LoadModule {module}_module /usr/lib/apache2/modules/{file}\n");
    }
    config += "ErrorLog /dev/stderr\nLogFormat \"%r %>s\" short\nCustomLog /dev/stdout short\nDocumentRoot /site\n\
        DirectoryIndex index.php index.html\nMaxRequestWorkers 32\nStartServers 2\nListenBacklog 512\n\
        <FilesMatch \\.php$>\nSetHandler application/x-httpd-php\n</FilesMatch>\n";
    put(documents, "httpd.conf", &config);
    put(documents, "index.php", PAGE);
}

/// What a shell is told in a site with what [`nginx_files`] writes: php-fpm goes to the background as soon as its socket
/// is there, so that no visitor of nginx finds none.
pub const NGINX: &str =
    "php-fpm8.2 -D -y /site/php-fpm.conf && exec nginx -e /dev/stderr -c /site/nginx.conf";

/// The documents of a site of nginx with php-fpm.
pub fn nginx_files(documents: &Path) {
    put(
        documents,
        "php-fpm.conf",
        "[global]\npid = /tmp/php-fpm.pid\nerror_log = /dev/stderr\n[www]\nlisten = /tmp/php-fpm.sock\n\
         pm = static\npm.max_children = 2\n",
    );
    let mut config = String::from(
        "daemon off;\npid /tmp/nginx.pid;\nerror_log /dev/stderr;\nworker_processes 1;\nevents { }\nhttp {\n\
         access_log /dev/stdout;\n",
    );
    // Its own places are root's.
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        config += &format!("{kind}_temp_path /tmp/{kind};\n");
    }
    config += "server {\nlisten 8080;\nroot /site;\nindex index.php index.html;\nlocation ~ \\.php$ {\n\
        fastcgi_pass unix:/tmp/php-fpm.sock;\nfastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;\n\
        fastcgi_param REQUEST_METHOD $request_method;\nfastcgi_param QUERY_STRING $query_string;\n\
        fastcgi_param CONTENT_TYPE $content_type;\nfastcgi_param CONTENT_LENGTH $content_length;\n}\n}\n}\n";
    put(documents, "nginx.conf", &config);
    put(documents, "index.php", PAGE);
}

/// A definition's rest for a shell script that may do as it likes; `listen` is `tcp:8080`.
pub fn script(text: &str) -> String {
    format!("command = [\"/bin/sh\", \"-c\", {text:?}]\nlisten = \"tcp:8080\"\n")
}

/// Puts a file of the site's user into its documents.
pub fn put(documents: &Path, name: &str, text: &str) {
    let path = documents.join(name);
    fs::write(&path, text).expect("a file");
    chown(&path, Some(OWNER), Some(OWNER)).expect("its owner");
}
