import java.io.IOException;
import java.net.HttpURLConnection;
import java.net.URI;
import java.util.Optional;

/** java.net.HttpURLConnection; takes the proxy from the system properties, not from the proxy variables. */
final class UrlConnectionFetch {
    public static void main(String[] arguments) throws IOException {
        var connection = (HttpURLConnection) URI.create(arguments[0]).toURL().openConnection();
        try (var page = connection.getInputStream()) {
            Show.page(page.readAllBytes());
        } catch (IOException exception) {
            var body = connection.getErrorStream();
            Show.error(
                    exception,
                    Optional.ofNullable(connection.getHeaderField("Proxy-Status")),
                    body == null ? Optional.empty() : Optional.of(body.readAllBytes()));
        }
    }
}
