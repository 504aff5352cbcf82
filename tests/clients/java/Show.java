import java.util.Optional;

/** How each Java client says what it got: see the header of ../run. */
final class Show {
    private Show() {}

    /** The page came. */
    static void page(byte[] body) {
        System.out.writeBytes("body: ".getBytes());
        System.out.writeBytes(body);
        System.out.flush();
    }

    /** It did not: what the client says, and what else it lets a program read of the answer. */
    static void error(Object message, Optional<String> proxyStatus, Optional<byte[]> body) {
        System.out.println("error: " + message);
        proxyStatus.ifPresent(value -> System.out.println("proxy-status: " + value));
        body.ifPresent(bytes -> System.out.println("body: " + new String(bytes)));
    }
}
