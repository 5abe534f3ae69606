import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.List;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.CreateFlag;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.hdfs.DistributedFileSystem;
import org.apache.hadoop.hdfs.HdfsConfiguration;
import org.apache.hadoop.hdfs.MiniDFSCluster;
import org.apache.hadoop.hdfs.MiniDFSNNTopology;
import org.apache.hadoop.security.UserGroupInformation;

/**
 * A cluster of one datanode and NAMENODES namenodes below FOLDER, with TREE in it as /models.
 *
 * Arguments: FOLDER TREE NAMENODES [KEY=VALUE …].  Says "READY URL;URL" once it serves; the line
 * "failover" makes the second namenode the active one; the end of its input ends it.
 */
public class MiniHdfs {
  public static void main(String[] arguments) throws Exception {
    Configuration configuration = new HdfsConfiguration();
    for (int i = 3; i < arguments.length; i++) {
      String[] pair = arguments[i].split("=", 2);
      configuration.set(pair[0], pair[1]);
    }
    UserGroupInformation.setConfiguration(configuration);
    int namenodes = Integer.parseInt(arguments[2]);
    MiniDFSNNTopology topology =
        namenodes > 1 ? MiniDFSNNTopology.simpleHATopology(namenodes) : MiniDFSNNTopology.simpleSingleNN(0, 0);
    MiniDFSCluster cluster =
        new MiniDFSCluster.Builder(configuration, new File(arguments[0])).nnTopology(topology).numDataNodes(1).build();
    if (namenodes > 1) {
      cluster.transitionToActive(0);
    }
    cluster.waitActive(0);
    DistributedFileSystem files = cluster.getFileSystem(0);
    files.copyFromLocalFile(new Path(arguments[1]), new Path("/models"));
    appendAsNewBlock(files, new Path("/models/appended"));
    List<String> urls = new ArrayList<>();
    for (int i = 0; i < namenodes; i++) {
      urls.add("http://localhost:" + cluster.getNameNode(i).getHttpAddress().getPort());
    }
    System.out.println("READY " + String.join(";", urls));
    BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
    for (String line = input.readLine(); line != null; line = input.readLine()) {
      cluster.transitionToStandby(0);
      cluster.transitionToActive(1);
      System.out.println("DONE");
    }
    Runtime.getRuntime().halt(0);
  }

  /** A file whose first block is short, as after concat or an append as a new block: "one", "two". */
  private static void appendAsNewBlock(DistributedFileSystem files, Path path) throws Exception {
    try (FSDataOutputStream out = files.create(path)) {
      out.write("one".getBytes());
    }
    try (FSDataOutputStream out = files.append(path, EnumSet.of(CreateFlag.APPEND, CreateFlag.NEW_BLOCK), 4096, null)) {
      out.write("two".getBytes());
    }
  }
}
