import http.server, os, sys, urllib.request

class Orders(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"order 8821 from port {os.environ['PORT']}"
        if self.path.endswith("/with-price"):
            price = urllib.request.urlopen(os.environ["CATALOG_URL"] + "/price").read().decode()
            body += f", {price}"
        body = (body + "\n").encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        if self.path != "/health":
            print("INFO", format % args, flush=True)

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Orders).serve_forever()
