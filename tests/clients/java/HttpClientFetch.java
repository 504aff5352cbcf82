import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.Optional;

/** java.net.http.HttpClient; takes the proxy from the system properties, not from the proxy variables. */
final class HttpClientFetch {
    public static void main(String[] arguments) throws InterruptedException {
        var request = HttpRequest.newBuilder(URI.create(arguments[0])).build();
        try {
            var response = HttpClient.newHttpClient().send(request, BodyHandlers.ofByteArray());
            if (response.statusCode() == 200) {
                Show.page(response.body());
            } else {
                // A response has no reason phrase in this API.
                Show.error(
                        response.statusCode(),
                        response.headers().firstValue("Proxy-Status"),
                        Optional.of(response.body()));
            }
        } catch (IOException exception) {
            Show.error(exception, Optional.empty(), Optional.empty());
        }
    }
}
